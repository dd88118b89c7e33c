"""One host of the lab, run inside its namespace: receives from all, connects to all, sends at the appointed time, tells when the last byte came.

Talks JSON lines with the parent: gets its address and what to send, says "ready", gets the start time (monotonic seconds), says when it was done.
"""

import json
import socket
import sys
import threading
import time

CHUNK_BYTES = 1 << 16


def main() -> None:
    """Serve one round."""
    orders = json.loads(sys.stdin.readline())
    server = socket.create_server((orders["address"], orders["port"]), backlog=128)
    receiving = threading.Thread(target=_receive, args=(server, orders["senders"]))
    receiving.start()
    print("ready", flush=True)
    start_s = float(sys.stdin.readline())
    sending = [threading.Thread(target=_send, args=(address, orders["port"], size, start_s)) for address, size in orders["to"]]
    for thread in sending:
        thread.start()
    receiving.join()
    print(time.monotonic(), flush=True)


def _receive(server: socket.socket, senders: int) -> None:
    readers = []
    for _ in range(senders):
        connection, _ = server.accept()
        readers.append(threading.Thread(target=_drain, args=(connection,)))
        readers[-1].start()
    for reader in readers:
        reader.join()


def _drain(connection: socket.socket) -> None:
    with connection:
        while connection.recv(CHUNK_BYTES):
            pass


def _send(address: str, port: int, size: int, start_s: float) -> None:
    with socket.create_connection((address, port), timeout=60) as connection:
        connection.settimeout(None)
        time.sleep(max(0.0, start_s - time.monotonic()))
        connection.sendall(bytes(size))


if __name__ == "__main__":
    main()
