"""Certificates of the services that speak TLS, by a certificate authority of the shop's own."""

import time

from layout import SERVICES
from network import run

CONFIGURATION = """
[ca]
default_ca = shop
[shop]
dir = {folder}
new_certs_dir = {folder}
database = {folder}/index
serial = {folder}/serial
default_md = sha256
policy = any
copy_extensions = copy
unique_subject = no
[any]
commonName = supplied
"""
YEAR = 365 * 86400


def stamp(seconds):
    return time.strftime("%y%m%d%H%M%SZ", time.gmtime(seconds))


class Authority:
    """Issues certificates into a folder: NAME.pem and NAME.key."""

    def __init__(self, folder):
        self.folder = folder

    def start(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "index").write_text("")
        (self.folder / "serial").write_text("1000")
        (self.folder / "ca.conf").write_text(CONFIGURATION.format(folder=self.folder))
        subject = ("-subj", "/CN=shop authority", "-days", "30", "-nodes")
        key, pem = str(self.folder / "ca.key"), str(self.folder / "ca.pem")
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
        run("openssl", "req", "-x509", *curve, *subject, "-keyout", key, "-out", pem)
        for service in SERVICES.values():
            if service.tls:
                self.issue(service.name, time.time() + YEAR)

    def issue(self, name, until):
        """A certificate that expires at `until` (seconds since the epoch); the key stays."""
        key, request = str(self.folder / f"{name}.key"), str(self.folder / f"{name}.csr")
        if not (self.folder / f"{name}.csr").exists():
            curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
            names = ("-subj", f"/CN={name}.shop", "-addext", f"subjectAltName=DNS:{name}.shop")
            run("openssl", "req", *curve, *names, "-keyout", key, "-out", request)
        days = ("-startdate", stamp(time.time() - YEAR), "-enddate", stamp(until))
        authority = ("-cert", str(self.folder / "ca.pem"), "-keyfile", str(self.folder / "ca.key"))
        configuration = ("-config", str(self.folder / "ca.conf"), "-batch", "-notext")
        output = str(self.folder / f"{name}.pem")
        run("openssl", "ca", *configuration, *authority, *days, "-in", request, "-out", output)
