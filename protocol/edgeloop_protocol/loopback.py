"""Does a host name only this machine? Then nobody can listen in between."""


def is_loopback(host: str) -> bool:
    """Of a name or an address; a name other than localhost is looked up nowhere."""
    if host == "localhost":
        return True
    import ipaddress  # a runner, which reads configurations too, never asks

    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
