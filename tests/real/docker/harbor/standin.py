"""The part of a registry that a login sees: a token is signed with this node's key, and checked with this node's
certificate. So a token that one node signed is good on another only if both have the same pair."""
import base64
import hashlib
import http.server
import json

ROOT = "/harbor/common/config/"
SETTINGS = dict(
    (part.strip() for part in line.split("=", 1)) for line in open("/harbor/harbor.cfg") if "=" in line and line[0] != "#"
)


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, status, body, *headers):
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        given = self.headers.get("Authorization", "")
        if self.path == "/":
            return self.answer(200, {"harbor": "stands in"})
        if self.path.startswith("/service/token"):
            pair = f"admin:{SETTINGS['harbor_admin_password']}".encode()
            if given != "Basic " + base64.b64encode(pair).decode():
                return self.answer(401, {"errors": [{"code": "UNAUTHORIZED", "message": "wrong password"}]})
            key = open(ROOT + "ui/private_key.pem").read()
            return self.answer(200, {"token": hashlib.sha256(key.encode()).hexdigest()})
        if given == "Bearer " + open(ROOT + "registry/root.crt").read():
            return self.answer(200, {})
        realm = f'Bearer realm="http://{self.headers["Host"]}/service/token",service="harbor-registry"'
        error = {"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}
        return self.answer(401, error, ("Www-Authenticate", realm), ("Docker-Distribution-Api-Version", "registry/2.0"))


http.server.ThreadingHTTPServer(("", 80), Handler).serve_forever()
