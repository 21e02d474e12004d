"""Start here: `python app.py --host 127.0.0.1 --port 7860`."""

import argparse
import os

from ui import page


def main() -> None:
    parser = argparse.ArgumentParser(description="Unnoise: diffusion papers, running side by side.")
    host = os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")  # which a Space sets
    parser.add_argument("--host", default=host, help="address to listen on; 0.0.0.0 opens the studio to the network")
    parser.add_argument("--port", type=int, default=7860)
    args = parser.parse_args()
    page.launch(args.host, args.port)


if __name__ == "__main__":
    main()
