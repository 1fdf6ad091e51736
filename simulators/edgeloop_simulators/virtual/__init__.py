"""World one: real agents and the real controller in virtual time, from one seed (ADR 0009).

Each package below has one idea, and imports only those under it (a contract of import-linter in
pyproject.toml holds it); packages on one line know nothing of each other:

    seeds_command, fleet_builder     ways in: `edgeloop-sim explore`, and the fixture `fleet`
    scenario_command                 the way in of `edgeloop-sim run` and `compare`
    report                           a run as a document and a page; two runs side by side
    run                              a scenario played, recorded and held to what it expects
    scenario | seeds | parts         where worlds come from: files, seeds; worlds of many processes
    world                            everything below, put together and run
    laws                             what must hold, looked at after every event
    device | controller              the real agent and the real controller, and their hosts
    network | models                 what carries messages; what devices see and models answer
    spec                             a world and its faults, as values
    kernel                           time, luck and what is seen
"""
