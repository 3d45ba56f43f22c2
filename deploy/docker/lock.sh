#!/bin/sh
# Makes the lock files from setup.cfg's extras, for all Pythons from 3.11 on. Needs uv (PyPI: uv).
#
#   sh deploy/docker/lock.sh             what setup.cfg asks for anew; versions locked before stay
#   sh deploy/docker/lock.sh --upgrade   the newest of everything
set -eu
cd "$(dirname "$0")/../.."
lock() { # FILE FLAGS...
    file=deploy/docker/locks/$1
    shift
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-header --no-emit-index-url --output-file "$file" "$@"
}
lock build.txt "$@" deploy/docker/locks/build.in
lock ingest.txt "$@" --extra ingestd setup.cfg
# predict reads pictures and URLs by ingest's code; a cluster's model pipeline launches from this image.
lock tensorflow.txt "$@" --extra ingest --extra launch --extra serve setup.cfg
lock tensorflow-gpu.txt "$@" --constraint deploy/docker/locks/tensorflow.txt \
    --extra ingest --extra launch --extra serve --extra gpu setup.cfg
