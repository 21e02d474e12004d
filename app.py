"""Start here: `python app.py --host 127.0.0.1 --port 7860`."""

import argparse
import os
import signal

from backends import jobs
from ui import page


def main() -> None:
    parser = argparse.ArgumentParser(description="Unnoise: diffusion papers, running side by side.")
    host = os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")  # which a Space sets
    parser.add_argument("--host", default=host, help="address to listen on; 0.0.0.0 opens the studio to the network")
    parser.add_argument("--port", type=int, default=7860)
    args = parser.parse_args()
    ends_well()
    page.launch(args.host, args.port)


def ends_well() -> None:
    """Asked to end, by a supervisor (SIGTERM) or Ctrl C: what runs is kept first. Asked twice, it ends at once."""

    def ended(sign, _) -> None:
        signal.signal(sign, signal.SIG_DFL)
        jobs.end()
        raise KeyboardInterrupt  # which Gradio waits for

    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, ended)


if __name__ == "__main__":
    main()
