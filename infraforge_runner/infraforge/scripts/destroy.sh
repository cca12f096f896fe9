#!/usr/bin/env bash
# Destroys the stack of config.json in AWS_REGION. Without --force the CDK would ask a terminal that is not there; the
# request has confirmed it by the stack's name.
set -euo pipefail
# shellcheck source=infraforge_runner/infraforge/scripts/infraforge.sh
source "$(dirname "${BASH_SOURCE[0]}")/infraforge.sh"

exec "${cdk[@]}" destroy --force
