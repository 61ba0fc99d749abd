# Sourced: sets `python` to an interpreter with PyYAML and Helm's engine (helm-python-sdk, which
# needs Python 3.10), in an environment of its own that is created once.
venv=target/testbed/opt/helm
if ! [ -x "$venv/bin/python" ]; then
    rm -rf "$venv.new"
    python3 -m venv "$venv.new"
    "$venv.new/bin/pip" install -q --disable-pip-version-check helm-python-sdk==0.2.2 pyyaml
    mv "$venv.new" "$venv"
fi
python=$venv/bin/python
