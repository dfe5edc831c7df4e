"""The same answer by nginx, out of its configuration. `nginx.py PORT`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bare import ANSWER

CONFIGURATION = """
daemon off;
master_process off;
pid nginx.pid;
error_log stderr;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            default_type application/json;
            return 200 '{answer}';
        }}
    }}
}}
"""

if __name__ == "__main__":
    Path("nginx.conf").write_text(CONFIGURATION.format(port=sys.argv[1], answer=ANSWER.decode()))
    os.execvp("nginx", ["nginx", "-p", os.getcwd(), "-c", "nginx.conf"])  # noqa: PTH109, S606  our own
