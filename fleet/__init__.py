"""What agents and commanders say to each other through Consul: keys, orders, reports, slots, health."""

from fleet.consul import ConsulStore
from fleet.documents import (
    VERSION,
    Build,
    Commit,
    Order,
    Problem,
    Report,
    decode_build,
    decode_order,
    decode_report,
    encode,
)
from fleet.orders import check_obeyable, cutoff_for, hosts_for_percent, position, wanted_build
from fleet.settings import ConsulSettings, consul_settings
from fleet.store import (
    CheckUnchanged,
    Contact,
    Delete,
    Entry,
    Put,
    Service,
    ServiceHealth,
    Slot,
    SlotLost,
    Store,
    StoreRefused,
    StoreUnreachable,
)

__all__ = [
    "VERSION",
    "Build",
    "CheckUnchanged",
    "Commit",
    "ConsulSettings",
    "ConsulStore",
    "Contact",
    "Delete",
    "Entry",
    "Order",
    "Problem",
    "Put",
    "Report",
    "Service",
    "ServiceHealth",
    "Slot",
    "SlotLost",
    "Store",
    "StoreRefused",
    "StoreUnreachable",
    "check_obeyable",
    "consul_settings",
    "cutoff_for",
    "decode_build",
    "decode_order",
    "decode_report",
    "encode",
    "hosts_for_percent",
    "position",
    "wanted_build",
]
