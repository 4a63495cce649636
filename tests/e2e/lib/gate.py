"""A door in front of a server: answers can be held after their first event, connections refused, and requests are kept. Standard library only."""
import json
import socket
import threading


class Gate:
    """hold: streamed answers stop after their first event until it is cleared. refuse: connections that would ask for one are closed. cut: streams end after their first event."""

    def __init__(self, port):
        self.to, self.open, self.refuse, self.cut, self.bodies = port, threading.Event(), False, False, []
        self.open.set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        try:
            server = socket.create_connection(("127.0.0.1", self.to))
            threading.Thread(target=self.requests, args=(client, server), daemon=True).start()
            while data := server.recv(65536):
                streams = b"data: {" in data
                if streams and self.cut:
                    break
                if streams and not self.open.is_set():
                    first = data.index(b"\n\n", data.index(b"data: {")) + 2 if b"\n\n" in data[data.index(b"data: {"):] else len(data)
                    client.sendall(data[:first])
                    data = data[first:]
                    self.open.wait()
                client.sendall(data)
        except OSError:
            pass
        for s in (client, server):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def requests(self, client, server):
        """Requests on one connection, one after the other; each body is kept."""
        rest = b""
        try:
            while True:
                while b"\r\n\r\n" not in rest:
                    data = client.recv(65536)
                    if not data:
                        return server.shutdown(socket.SHUT_WR)
                    rest += data
                head, rest = rest.split(b"\r\n\r\n", 1)
                length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
                while len(rest) < length:
                    rest += client.recv(65536)
                body, rest = rest[:length], rest[length:]
                if body:
                    self.bodies.append(json.loads(body))
                    if self.refuse:
                        return client.shutdown(socket.SHUT_RDWR)
                server.sendall(head + b"\r\n\r\n" + body)
        except OSError:
            pass
