"""Whom a broker knows besides devices. No device id holds a dot: no device can be one of them."""

from typing import Final

CONTROLLER: Final = "edgeloop.controller"
CANARY: Final = "edgeloop.canary"

CA: Final = "ca.pem"
CRL: Final = "crl.pem"
SERVER_CERTIFICATE: Final = "server.pem"
SERVER_KEY: Final = "server.key"
