class CheckResult: pass
def check_machine(m): pass
