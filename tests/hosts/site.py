"""Owns the app of the tests: PHP whose every file tells its build, and the servers that serve it on a machine.

How it is deployed is left to the tests. Unlike other trees of builds, a page here is put together from many files while
it is served: a reader that sees two builds says so.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from tests.hosts.machine import Machine

PARTS: Final = 8
OTHERS: Final = 400
"""So many files are the same in each build."""
_MADE: Final = 1_700_000_000
PHP_FPM: Final = next(iter(sorted(each.name for each in Path("/usr/sbin").glob("php-fpm*"))), "php-fpm")
_VERSION: Final = PHP_FPM.removeprefix("php-fpm")
PHP_UNIT: Final = f"php{_VERSION}-fpm.service"
_PHP_ETC: Final = f"/etc/php/{_VERSION}/fpm"
POOL: Final = "/run/php/shop.sock"
GATE: Final = "/run/shop/gate"
"""While this file is there, a request of `/slow.php` goes on."""
STARTED: Final = "/run/shop/started"
"""Such a request makes this file."""
OPCACHE: Final = {
    "default": "",
    "validate_timestamps=0": "opcache.validate_timestamps = 0\n",
}

# 81 serves a directory that no deploy system cares for: the control.
_NGINX = f"""
server {{
    listen 80 backlog=4096;
    root /srv/shop/hot;
    location / {{ try_files $uri /index.php; }}
    location = /nginx {{ stub_status; access_log off; }}
    location ~ \\.php$ {{
        include fastcgi_params;
        fastcgi_param SCRIPT_FILENAME $realpath_root$fastcgi_script_name;
        fastcgi_param DOCUMENT_ROOT $realpath_root;
        fastcgi_pass unix:{POOL};
    }}
}}
server {{
    listen 81 backlog=4096;
    root /srv/plain;
    location ~ \\.php$ {{
        include fastcgi_params;
        fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;
        fastcgi_pass unix:{POOL};
    }}
}}
"""
_POOL = f"""
[shop]
user = www-data
group = www-data
listen = {POOL}
listen.owner = www-data
listen.group = www-data
listen.mode = 0660
listen.acl_users = www-data,hotcold
listen.backlog = 4096
pm = static
pm.max_children = 4
pm.status_path = /status
"""
_SLOW = f"""<?php
touch("{STARTED}");
while (file_exists("{GATE}")) {{ usleep(20000); clearstatcache(); }}
echo "done\\n";
"""


def write_tree(tree: Path, build_id: str) -> None:
    """Make a build: `index.php` prints its id, and that of each file which it includes, a line each.

    The files have the same old time in every build, as many a build tool leaves them; PHP caches new ones only later.
    """
    (tree / "lib").mkdir(parents=True)
    for number in range(OTHERS):
        (tree / "lib" / f"{number}.php").write_text(f"<?php return {number};\n" * 200)
    parts = "".join(f'include __DIR__ . "/part-{number}.php";\n' for number in range(PARTS))
    (tree / "index.php").write_text(f'<?php\nheader("Content-Type: text/plain");\necho "{build_id}\\n";\n{parts}')
    for number in range(PARTS):
        (tree / f"part-{number}.php").write_text(f'<?php\necho "{build_id}\\n";\n')
    (tree / "slow.php").write_text(_SLOW)
    for path in tree.rglob("*"):
        os.utime(path, (_MADE, _MADE))


def install_site(machine: Machine) -> None:
    """Configure nginx and PHP-FPM on a machine that is off, and have them start with it."""
    machine.write("/etc/nginx/sites-enabled/shop", _NGINX)
    machine.remove("/etc/nginx/sites-enabled/default")
    machine.write(f"{_PHP_ETC}/pool.d/shop.conf", _POOL)
    machine.remove(f"{_PHP_ETC}/pool.d/www.conf")
    machine.write("/etc/tmpfiles.d/site.conf", "d /run/shop 0755 www-data www-data -\n")
    # Tests restart it more often than anybody else does.
    machine.write(f"/etc/systemd/system/{PHP_UNIT}.d/often.conf", "[Unit]\nStartLimitIntervalSec=0\n")
    wants = machine.disk / "etc/systemd/system/multi-user.target.wants"
    for unit in ("nginx.service", PHP_UNIT):
        (wants / unit).unlink(missing_ok=True)  # a whiteout, if this machine starts it, too
        (wants / unit).symlink_to(f"/lib/systemd/system/{unit}")


def set_opcache(machine: Machine, mode: str, *, patience: str = "0") -> None:
    """Start PHP-FPM anew, with an empty cache of its code, in one of the modes of `OPCACHE`.

    At a reload it waits for its workers as long as `patience` says.
    """
    machine.write(f"{_PHP_ETC}/pool.d/00-patience.conf", f"[global]\nprocess_control_timeout = {patience}\n")
    machine.write(f"{_PHP_ETC}/conf.d/99-shop.ini", OPCACHE[mode])
    machine.run("systemctl", "restart", PHP_UNIT)
