"""Choices of mksgn-export and of commands that run NIR files, as data: --help need not import what implements them."""

ZERO, SUBTRACT, SUBTRACT_AT_ONCE = "zero", "subtract", "subtract-at-once"
RESETS = {  # what a spike does to the membrane, and the frameworks that do so
    ZERO: "v = v_reset, as NIR says (norse, SpikingJelly, Lava)",
    SUBTRACT: "the next step's v, after its decay, is smaller by v_threshold - v_reset (snnTorch, spyx)",
    SUBTRACT_AT_ONCE: "v is smaller by it before the next decay (SpikingJelly with v_reset=None; sinabs and "
    "rockpool, which may fire several times in a step)",
}
V_INITS = {  # where a membrane starts
    ZERO: "0 (snnTorch, spyx, sinabs, rockpool)",
    "v_reset": "v_reset (SpikingJelly)",
    "leak": "v_leak (norse)",
}
SPIKE_DELAYS = {  # time steps from crossing the threshold to the outgoing spike
    0: "at once, as NIR says",
    1: "in the next step, except into the neurons themselves (spyx)",
}
EULER = "euler"
INTEGRATIONS = {  # how a step updates membrane and synaptic current, and the frameworks that do so
    EULER: "v += dt/tau (v_leak + r x - v), as NIR says (snnTorch, SpikingJelly, norse)",
    "euler-unit": "v = (1 - dt/tau) v + x, whatever r and w_in say (spyx)",
    "euler-unit-current": "v as euler, i = (1 - dt/tau_syn) i + x, whatever w_in says (norse's LIFCell)",
    "exponential": "v = e v + (1 - e)(v_leak + r x), e = exp(-dt/tau) (sinabs)",
    "exponential-unit": "v = e v + x, i = e_syn (i + x), whatever r and w_in say (rockpool)",
}
FORMATS = ("nir", "onnx")
PROFILES = ("structured", "portable")  # the first is the default
SIMULATORS = {  # choices of --against, and how to install each
    "spikingjelly": "needs Python 3.11 or later: pip install 'spikingjelly>=2'",
    "snntorch": "pip install snntorch nirtorch",
    "norse": "pip install norse",
    "onnxruntime": "pip install 'mksgn[onnx]'",
}
NO_GRAPH = (
    "make one with mksgn-export model.pt --to nir, or with your framework's exporter to NIR"  # where there is no file
)
