"""``python -m tests.world``: a workspace manager, supervisors and a registry to try the service against."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import Final

import anyio
import structlog

from tests.world.registries.misbehaving import FakeRegistry
from tests.world.scripts import failing, succeeding
from tests.world.workspaces import Workspace, WorkspaceManager
from tests.world.world import World

log = structlog.get_logger("world")

WORDS: Final = """\
The workspace manager is at   {wsman}
The registry is at            {registry}  (plain HTTP)
Base images to build from:    {base_images}
A build takes a few seconds and {outcome}.

With the ports as they are by default, config/example.json fits:

    imgbuilder run --config config/example.json
    imgbuilder build --ref {base_image}

Ctrl-C ends it.
"""


def main() -> None:
    """Run the world until it is interrupted."""
    parser = argparse.ArgumentParser(prog="python -m tests.world", description=__doc__)
    parser.add_argument("--wsman-port", type=int, default=12001, help="port of the workspace manager")
    parser.add_argument("--registry-port", type=int, default=5000, help="port of the registry")
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between two lines of a build")
    parser.add_argument("--fail", action="store_true", help="let builds fail")
    options = parser.parse_args()
    anyio.run(run, options)


async def run(options: argparse.Namespace) -> None:
    """Run the world as *options* say."""
    script = failing if options.fail else succeeding
    world = World(
        script=script(pause=options.pause),
        manager=WorkspaceManager(port=options.wsman_port),
        registry=FakeRegistry(name="localhost", port=options.registry_port),
    )
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with world:
            base_images = [world.seed_base_image(), world.seed_base_image("ubuntu", "24.04")]
            _tell_builds(world.manager)
            words = WORDS.format(
                wsman=world.manager.address,
                registry=world.registry.host,
                base_images=", ".join(base_images),
                base_image=base_images[0],
                outcome="fails" if options.fail else "leaves an image",
            )
            sys.stdout.write(words)
            sys.stdout.flush()
            async for _ in signals:
                break


def _tell_builds(manager: WorkspaceManager) -> None:
    begin, end = manager.on_start, manager.on_end

    def started(workspace: Workspace) -> None:
        log.info("build started", build_id=workspace.id, ref=workspace.ref)
        begin(workspace)

    def ended(workspace: Workspace) -> None:
        log.info("build ended", build_id=workspace.id, ref=workspace.ref)
        end(workspace)

    manager.on_start, manager.on_end = started, ended


if __name__ == "__main__":
    main()
