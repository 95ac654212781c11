"""x"""
from .certificates import Certificates, make_certificates
from .clock import ManualClock, ManualTimer
from .ledger import LedgerTestCase, ResourceLedger, UncaughtError, UncaughtThreadErrors
from .proxy import Direction, FaultProxy
from .serving import free_port, serving, wait_until

__all__ = [
    "Certificates",
    "Direction",
    "FaultProxy",
    "LedgerTestCase",
    "ManualClock",
    "ManualTimer",
    "ResourceLedger",
    "UncaughtError",
    "UncaughtThreadErrors",
    "free_port",
    "make_certificates",
    "serving",
    "wait_until",
]
