#!/bin/sh
# Fills raw/<pillar>/ as pillars.tsv says: papers of Debian (fetch.sh) and the notes of the quickstart.
# Usage: raw.sh [FOLDER]    where fetch.sh put them; default: it is run, and puts them here
set -eu
cd "$(dirname "$0")"
from=${1:-.}
[ -d "$from/papers" ] || ./fetch.sh
tab=$(printf '\t')
tail -n +2 pillars.tsv | while IFS=$tab read -r pillar paper; do
    mkdir -p "raw/$pillar"
    case $paper in
        */*) cp "$paper.pdf" "raw/$pillar/" ;;
        *) cp "$from/papers/$paper.pdf" "raw/$pillar/" ;;
    esac
done
echo "$(find raw -name '*.pdf' | wc -l) papers in raw"
