"""Opening models by name: what is not asked for is not loaded, and what is not installed is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agents.models import open_model
from hive_errors import ModelSettingInvalid

ROOT = Path(__file__).parents[2]


def run(script: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.strip()


def test_a_name_alone_loads_no_client() -> None:
    """The door and the port load neither a provider's client nor a YAML reader."""
    heavy = ("anthropic", "genai_prices", "httpx2", "pydantic", "ruamel", "structlog", "opentelemetry")
    assert run(f"import sys, agents.model, agents.models; print(sorted(set({heavy!r}) & sys.modules.keys()))") == "[]"


def test_scripted_needs_no_client(tmp_path: Path) -> None:
    """The demo runs where the extra for Claude is not installed."""
    path = tmp_path / "answers.yaml"
    path.write_text("drone: [{text: hi}]\n", encoding="utf-8")
    script = (
        "import sys; sys.modules['anthropic'] = sys.modules['genai_prices'] = None\n"
        f"from agents.models import open_model; print(type(open_model('scripted:{path}')).__name__)"
    )
    assert run(script) == "ScriptedModel"


def test_a_client_that_is_not_installed_is_named_with_the_extra() -> None:
    """Where the client is missing, the error says what to install."""
    script = (
        "import sys; sys.modules['anthropic'] = None\n"
        "from agents.models import open_model\n"
        "from hive_errors import ModelNotInstalled\n"
        "try: open_model('claude-opus-5-5', environ={'ANTHROPIC_API_KEY': 'k'})\n"
        "except ModelNotInstalled as error: print(error.package, error.advice)"
    )
    assert run(script) == "anthropic pip install 'hive-orchestrator[claude]'"


@pytest.mark.parametrize(
    ("environ", "setting"),
    [
        ({"ANTHROPIC_API_KEY": "sk-1\nsk-2"}, "ANTHROPIC_API_KEY"),
        ({"ANTHROPIC_API_KEY": "sk-é"}, "ANTHROPIC_API_KEY"),
        ({"ANTHROPIC_API_KEY": "export KEY=sk-1"}, "ANTHROPIC_API_KEY"),
        ({"ANTHROPIC_API_KEY": "sk-1", "ANTHROPIC_BASE_URL": "localhost:11434"}, "ANTHROPIC_BASE_URL"),
    ],
)
def test_a_setting_that_cannot_be_right_is_named_without_its_value(environ: dict[str, str], setting: str) -> None:
    """A key that was pasted wrongly, or an address without a scheme, is told before anything is sent."""
    with pytest.raises(ModelSettingInvalid, match=setting) as caught:
        open_model("claude-opus-5-5", environ=environ)
    assert "sk-" not in str(caught.value)
