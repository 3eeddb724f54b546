"""What `ray submit` carries to the head node and runs there: mergefront, from the environment of the nodes.

ray submit cluster/launch/onprem.yaml cluster/launch/submit.py -- run SWEEP.yaml --out DIR
"""

import sys

from orchestrator.cli.main import main

sys.exit(main())
