#!/bin/sh
# A gate for CI: fails the build when the gradient of a spec vanishes, explodes, dies or is not finite.
#
#   sh examples/configs/ci-gate.sh model.yaml [more.yaml ...]
#
# Exit code: 0 all gates passed; 3 a verdict was one that --fail-on names; any other, as gradcli gave it, is a spec or
# file that needs mending, not a verdict. The reports are kept in ./gradcli-reports, for the build's artifacts.
set -u

if [ "$#" -eq 0 ]; then
    echo "usage: $0 SPEC..." >&2
    exit 2
fi

reports=gradcli-reports
mkdir -p "$reports" || exit 4
result=0

for spec in "$@"; do
    report="$reports/$(basename "$spec" .yaml).json"
    code=0
    gradcli simulate "$spec" --format json --output "$report" --quiet \
        --fail-on vanishing,exploding,dead,nonfinite || code=$?
    case $code in
        0) echo "passed: $spec" ;;
        3) echo "failed: $spec, see $report" >&2 ;;
        *) echo "broken: $spec (exit code $code)" >&2
           exit "$code" ;;
    esac
    [ "$code" -gt "$result" ] && result=$code
done

exit "$result"
