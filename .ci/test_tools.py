"""`tools` and `need` on a machine that has next to nothing: a PATH of its own, with a package manager that is a script."""

import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).parent

APT = """#!/bin/sh
[ "$1" = update ] && touch "$MACHINE/updated" && exit 0
[ -e "$MACHINE/updated" ] || exit 100
for package; do :; done
echo "$package" >>"$MACHINE/installed"
case $package in
    prometheus) command=promtool ;;
    protobuf-compiler) command=protoc ;;
    docker.io) command=dockerd ;;
    debootstrap) exit 100 ;;
    *) command=$package ;;
esac
ln -s "$(command -v true)" "$MACHINE/bin/$command"
"""


class Machine(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        (self.folder / "bin").mkdir()
        for tool in ("sh", "bash", "env", "dirname", "touch", "ln", "true"):
            self.script(tool, f'#!/bin/sh\nexec {shutil.which(tool)} "$@"\n')
        self.script("apt-get", APT)
        self.user(0)

    def script(self, name: str, text: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def user(self, number: int) -> None:
        self.script("id", f"#!/bin/sh\necho {number}\n")

    def call(self, script: str, *arguments: str, **settings: str) -> tuple[int, str]:
        environment = {"PATH": str(self.folder / "bin"), "MACHINE": str(self.folder), **settings}
        # Not by its first line, whose interpreter may stand elsewhere.
        shell = shutil.which("bash" if script == "tools" else "sh")
        done = subprocess.run([shell, HERE / script, *arguments], env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    @property
    def installed(self) -> list[str]:
        path = self.folder / "installed"
        return path.read_text().split() if path.exists() else []

    def test_a_fresh_machine_gets_what_the_steps_need(self):
        _, output = self.call("tools")
        for package in ("valgrind", "prometheus", "protobuf-compiler", "chromium", "docker-compose", "docker.io", "debootstrap"):
            self.assertIn(package, self.installed, output)
        self.assertIn("debootstrap is needed and not installed", output)
        self.assertNotIn("docker.io is needed", output)

    def test_what_is_there_is_not_asked_for(self):
        for tool in ("docker", "google-chrome", "valgrind", "promtool", "protoc", "redis-server", "memcached", "python3"):
            self.script(tool, "#!/bin/sh\nexit 0\n")
        messages = self.folder / "google/protobuf/timestamp.proto"
        messages.parent.mkdir(parents=True)
        messages.touch()
        _, output = self.call("tools", PROTOC_INCLUDE=str(self.folder))
        self.assertEqual([], self.installed, output)

    def test_nothing_is_installed_unasked_or_without_the_right(self):
        for settings, user in (({"INSTALL": "no"}, 0), ({}, 1000)):
            self.user(user)
            code, output = self.call("need", "protoc", "protobuf-compiler", **settings)
            self.assertEqual((code, self.installed), (1, []))
            self.assertEqual(output, "protoc is needed and not installed: install the package protobuf-compiler and try again\n")

    def test_sudo_without_a_password_is_as_good_as_root(self):
        self.user(1000)
        self.script("sudo", '#!/bin/sh\nshift\nexec "$@"\n')
        self.assertEqual(self.call("need", "protoc", "protobuf-compiler")[0], 0)
        self.assertEqual(self.installed, ["protobuf-compiler"])


if __name__ == "__main__":
    unittest.main()
