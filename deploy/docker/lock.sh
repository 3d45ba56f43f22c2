#!/bin/sh
# Make the lock files of the images, and requirements-dev.txt for development, from setup.cfg's
# extras, for all Pythons from 3.11 on. Needs uv, which the development environment has.
#
#   sh deploy/docker/lock.sh             what setup.cfg asks for anew; versions locked before stay
#   sh deploy/docker/lock.sh --upgrade   the newest of everything
set -eu
cd "$(dirname "$0")/../.."
locks=deploy/docker/locks
lock() { # FILE FLAGS...
    file=$1
    shift
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-header --no-emit-index-url --output-file "$file" "$@"
}
lock $locks/build.txt "$@" $locks/build.in
lock $locks/ingest.txt "$@" --extra ingestd setup.cfg
# predict reads pictures and URLs by ingest's code; a cluster's model pipeline launches from this image.
lock $locks/tensorflow.txt "$@" --extra ingest --extra launch --extra serve setup.cfg
lock $locks/tensorflow-gpu.txt "$@" --constraint $locks/tensorflow.txt \
    --extra ingest --extra launch --extra serve --extra gpu setup.cfg
lock requirements-dev.txt "$@" --extra dev setup.cfg
