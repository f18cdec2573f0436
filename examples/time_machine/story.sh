#!/usr/bin/env bash
# A run is killed, recovered, traced, forked with another model, compared, explained and counted: from one log, without a key.
# Works in an empty directory; HIVE_DB may name another database.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

git init -q -b main && git config user.name ada && git config user.email ada@localhost
echo bees > topic.txt && git add topic.txt && git commit -q -m "The topic"

# run, and kill -9 whoever works on it, in the middle of a model's answer
hive run "$here/story.yaml" --script "$here/hasty.yaml" --id first --detach
hive up &
until hive events tool.returned -c first --json | grep -q bees; do sleep 0.1; done
kill -9 $!

# recover: another process goes on where that one was
hive run "$here/story.yaml" --id first --if-exists return
hive trace first

# fork where the drone had read the topic, and let another model go on
read_at="$(hive events tool.returned -c first --json --from 0 | sed -n '1s/.*"position": *\([0-9]*\).*/\1/p')"
hive label first read --at "$read_at"
hive fork first --at read --script "$here/careful.yaml" --id second

# what differs, why the file says what it says, and what it cost
hive diff first second --files || test $? -eq 1
hive why haiku.txt --run second
hive usage --by branch

# nothing of this was made up: today's code decides all of it again, and every invariant holds
hive redrive --all
hive audit
