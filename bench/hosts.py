"""Three sshds on loopback ports, each with keys of its own, and a master connection to each that is open.

All of them are children that the kernel ends with the bench, however that ends."""

import ctypes
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time

LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1


def child(argv, **more):
    """A process that ends when this one does, killed or not."""
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                            preexec_fn=lambda: LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM), **more)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Hosts:
    def __init__(self, directory, count=3):
        self.directory = os.path.join(directory, "hosts")
        os.mkdir(self.directory)
        os.mkdir(self.at("home"))
        self.daemons, self.masters, self.ports, known = [], [], [], []
        for name in ["id"] + [f"host{i}" for i in range(count)]:
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.at(name)], check=True)
        shutil.copy(self.at("id.pub"), self.at("authorized"))
        if os.getuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)
        for i in range(count):
            port = free_port()
            config = self.at(f"config{i}")
            with open(config, "w") as f:
                f.write(f"ListenAddress 127.0.0.1:{port}\nHostKey {self.at(f'host{i}')}\nAuthorizedKeysFile {self.at('authorized')}\n"
                        "PidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\n"
                        # A login shell reads what is in the home: what this machine's user has there is not measured.
                        f"SetEnv HOME={self.at('home')}\n")
            log = open(self.at(f"log{i}"), "w")
            self.daemons.append(child(["/usr/sbin/sshd", "-D", "-e", "-f", config], stderr=log))
            self.ports.append(port)
            with open(self.at(f"host{i}.pub")) as f:
                known.append(f"[127.0.0.1]:{port} {f.read()}")
        with open(self.at("known"), "w") as f:
            f.write("".join(known))
        for i, port in enumerate(self.ports):
            self.until(lambda: not socket.socket().connect_ex(("127.0.0.1", port)), f"sshd {i} listens")
            # It stays in the foreground: one that goes to the background outlives a bench that is killed.
            self.masters.append(child(self.ssh(i) + ["-M", "-N", "127.0.0.1"], stderr=subprocess.DEVNULL))
            self.until(lambda: os.path.exists(self.at(f"m{i}")), f"the master of host {i} is open")

    @staticmethod
    def until(so, what):
        end = time.time() + 20
        while not so():
            if time.time() > end:
                raise SystemExit(f"bench: not so after 20 s: {what}")
            time.sleep(0.02)

    def at(self, name):
        return os.path.join(self.directory, name)

    def ssh(self, i):
        return ["ssh", "-T", "-q", "-i", self.at("id"), "-p", str(self.ports[i]), "-S", self.at(f"m{i}"),
                "-o", f"UserKnownHostsFile={self.at('known')}", "-o", "BatchMode=yes"]

    def script(self, count):
        """A shell script that runs `true` that often on each host, the hosts side by side."""
        lines = [f"( i=0; while [ $i -lt {count} ]; do {' '.join(self.ssh(n))} 127.0.0.1 true </dev/null || exit 1; i=$((i+1)); done ) & p{n}=$!"
                 for n in range(len(self.ports))]
        lines += [f"wait $p{n} || exit 1" for n in range(len(self.ports))]
        path = self.at("script")
        with open(path, "w") as f:
            f.write("\n".join(lines) + "\n")
        return path

    def playbook(self, count):
        """The same as a playbook."""
        folder = self.at("playbook")
        os.makedirs(folder, exist_ok=True)
        targets, steps = [], []
        for n, port in enumerate(self.ports):
            options = f"{{ UserKnownHostsFile: {self.at('known')}, IdentitiesOnly: \"yes\" }}"
            targets.append(f"  h{n}: {{ ssh: {{ host: 127.0.0.1, port: {port}, user: {getpass.getuser()}, identity: {self.at('id')}, options: {options} }} }}")
            for i in range(count):
                needs = "[]" if i == 0 else f"[h{n}-{i - 1}]"
                steps.append(f"  - {{ id: h{n}-{i}, needs: {needs}, target: h{n}, uses: exec, with: {{ command: [\"true\"] }} }}")
        with open(os.path.join(folder, "playbook.yaml"), "w") as f:
            f.write("runback: 1\nname: ssh\ntargets:\n" + "\n".join(targets) + "\nsteps:\n" + "\n".join(steps) + "\n")
        return folder

    def stop(self):
        for process in self.masters + self.daemons:
            process.terminate()
            process.wait()
