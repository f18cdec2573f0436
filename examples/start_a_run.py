"""Start a workflow from Python, follow it, and wait for its result."""

import asyncio

from agents import Hive


async def main() -> None:
    async with Hive("sqlite:///hive.db", workspace=".") as hive:
        run = await hive.start("release.yaml", id="release-2", if_exists="return", approve="all")
        async for record in run.events():
            if record.topic == "task.completed":
                print(record.data["task_id"], record.data.get("output"))
        result = await run.result()
        print(result.status, result.output)


asyncio.run(main())
