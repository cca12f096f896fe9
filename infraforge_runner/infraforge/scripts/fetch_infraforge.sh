#!/usr/bin/env bash
# Gets InfraForge at the commit that Forgeline was made for, and builds it:
#
#     infraforge_runner/infraforge/scripts/fetch_infraforge.sh [FOLDER]     (InfraForge, if left out)
#     python run.py --infraforge FOLDER
#
# Needs git and Go 1.23 or later. Running it again is harmless. INFRAFORGE_REPOSITORY and INFRAFORGE_COMMIT name a
# mirror, or another commit.
set -euo pipefail

folder=${1:-InfraForge}
repository=${INFRAFORGE_REPOSITORY:-https://github.com/awslabs/InfraForge.git}
commit=${INFRAFORGE_COMMIT:-81b4f9b94ef1571b081223f762fad08494d8e7e5}
least=1.23

for tool in git go; do
    if ! command -v "$tool" >/dev/null; then
        echo "$tool is not on the PATH: building InfraForge needs git and Go $least or later." >&2
        exit 127
    fi
done
found=$(go env GOVERSION)
found=${found#go}
if [[ $(printf '%s\n' "$least" "$found" | sort --version-sort | head -n 1) != "$least" ]]; then
    echo "Go $found is too old: building InfraForge needs Go $least or later." >&2
    exit 1
fi

git init --quiet "$folder"
cd "$folder"
git fetch --quiet --depth 1 "$repository" "$commit"
git checkout --quiet --detach FETCH_HEAD
bash scripts/build.sh
test -x cmd/infraforge/infraforge
echo "InfraForge is built: start Forgeline with --infraforge $PWD"
