#!/bin/sh
# Removes from the environment $1 what no stage uses and what the libraries do without by design:
# tests, what is for compilers and linkers, and pyarrow's parts for Flight and S3. The build ends
# here if pyarrow does not.
set -eu
for packages in "$1"/lib/python3.*/site-packages; do
    cd "$packages"
    rm -rf numpy/tests numpy/*/tests numpy/distutils numpy/f2py
    rm -rf pyarrow/include pyarrow/src pyarrow/tests tensorflow/include
    rm -f pyarrow/*flight* pyarrow/*s3* pyarrow/libarrow_python*.so pyarrow/libarrow_python*.so.*.*
    find . -type f \( -name '*.h' -o -name '*.hpp' -o -name '*.a' -o -name '*.px[di]' -o -name '*.pyx' \) -delete
done
"$1/bin/python" -B -c 'import pyarrow.csv, pyarrow.dataset, pyarrow.fs, pyarrow.parquet'
