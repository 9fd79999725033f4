"""Runs a web worker, which a node has started."""

import sys

from noti.web_workers.process import main

main(sys.argv[1:])
