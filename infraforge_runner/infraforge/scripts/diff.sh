#!/usr/bin/env bash
# Shows what deploying config.json would change. Compares templates only: a change set would be made in the account.
set -euo pipefail
# shellcheck source=infraforge_runner/infraforge/scripts/infraforge.sh
source "$(dirname "${BASH_SOURCE[0]}")/infraforge.sh"

exec "${cdk[@]}" diff --method=template
