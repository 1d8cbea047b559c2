"""
Certificates for HTTPS servers on loopback.
"""

import ssl
import subprocess
from pathlib import Path


def self_signed(folder: Path, *names: str) -> tuple[ssl.SSLContext, Path]:
    """
    Create `key.pem` and a self-signed CA certificate for 127.0.0.1 and DNS names, which
    may be wildcards.

    Returns:
        The server's context, and the PEM file that a client must trust (AWS_CA_BUNDLE).
    """
    folder.mkdir(parents=True, exist_ok=True)
    certificate = folder / "certificate.pem"
    key = folder / "key.pem"
    alternatives = ",".join([*(f"DNS:{name}" for name in names), "IP:127.0.0.1"])
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-noenc", "-days=2"),
            "-pkeyopt=ec_paramgen_curve:prime256v1",
            f"-subj=/CN={names[0]}",
            f"-addext=subjectAltName={alternatives}",
            f"-keyout={key}",
            f"-out={certificate}",
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate
