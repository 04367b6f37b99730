"""Compiled programs, read as text: what they compute and exchange."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def test_a_compiled_loop_is_counted_as_often_as_it_runs(devices):
    from tooncrafter_jax.planning.hlo import parse_program
    from tooncrafter_jax.planning.hlo_report import collectives, largest_buffers, memory_traffic, program_flops

    mesh = Mesh(np.asarray(devices), ("data",), axis_types=(AxisType.Auto,))
    rows, split = (NamedSharding(mesh, PartitionSpec(*spec)) for spec in (("data",), (None, "data", None)))

    def run(x, weights):
        body = lambda h, w: (jax.lax.with_sharding_constraint(jnp.tanh(h @ w), rows), None)  # noqa: E731
        return jax.lax.scan(body, x, weights)[0]

    shapes = jax.ShapeDtypeStruct((64, 32), jnp.float32), jax.ShapeDtypeStruct((5, 32, 32), jnp.float32)
    text = jax.jit(run, in_shardings=(rows, split), out_shardings=rows).lower(*shapes).compile().as_text()
    assert text is not None
    program = parse_program(text)
    assert program_flops(program) == 5 * 2 * 8 * 32 * 32
    (gathered,) = collectives(program).values()
    assert gathered.bytes == 5 * 32 * 32 * 4  # the weights, in the loop or before it
    assert gathered.traffic == gathered.bytes * 7 / 8
    assert memory_traffic(program) > 5 * 32 * 32 * 4
    assert largest_buffers(program, 3)[0].bytes <= 5 * 32 * 32 * 4


def test_a_loop_without_a_stated_count_is_counted_by_its_limit():
    """The TPU compiler states none."""
    from tooncrafter_jax.planning.hlo import parse_program
    from tooncrafter_jax.planning.hlo_report import program_flops

    text = """HloModule jit_f, is_scheduled=true

%body (p: (s32[], f32[16,16])) -> (s32[], f32[16,16]) {
  %p = (s32[]{:T(128)}, f32[16,16]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %x = f32[16,16]{1,0:T(8,128)} get-tuple-element(%p), index=1
  %one = s32[]{:T(128)} constant(1)
  %next = s32[]{:T(128)} add(%i, %one)
  %y = f32[16,16]{1,0:T(8,128)} convolution(%x, %x), dim_labels=bf_io->bf
  ROOT %t = (s32[]{:T(128)}, f32[16,16]{1,0:T(8,128)}) tuple(%next, %y)
}

%condition (q: (s32[], f32[16,16])) -> pred[] {
  %limit = s32[]{:T(128)} constant(7)
  %q = (s32[]{:T(128)}, f32[16,16]{1,0:T(8,128)}) parameter(0)
  %j = s32[]{:T(128)} get-tuple-element(%q), index=0
  ROOT %lt = pred[]{:T(512)} compare(%j, %limit), direction=LT, metadata={op_name="jit(f)/while/cond/lt"}
}

ENTRY %main (a: f32[16,16]) -> (s32[], f32[16,16]) {
  %a = f32[16,16]{1,0:T(8,128)} parameter(0)
  %zero = s32[]{:T(128)} constant(0)
  %start = (s32[]{:T(128)}, f32[16,16]{1,0:T(8,128)}) tuple(%zero, %a)
  ROOT %loop = (s32[]{:T(128)}, f32[16,16]{1,0:T(8,128)}) while(%start), condition=%condition, body=%body
}
"""
    assert program_flops(parse_program(text)) == 7 * 2 * 16**3
    unknown = text.replace("compare(%j, %limit)", "compare(%j, %j)")
    assert program_flops(parse_program(unknown)) == 2 * 16**3


def test_exchanges_of_the_tpu_compiler_are_read():
    from tooncrafter_jax.planning.hlo import parse_program
    from tooncrafter_jax.planning.hlo_report import collectives

    text = """HloModule step
%all-reduce-scatter.1 (a: bf16[64,8]) -> bf16[16,8] {
  %a = bf16[64,8]{1,0} parameter(0)
  %all-reduce.1 = bf16[64,8]{1,0} all-reduce(%a), channel_id=2, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  ROOT %d = bf16[16,8]{1,0} dynamic-slice(%all-reduce.1), dynamic_slice_sizes={16,8}
}
ENTRY %main (p: bf16[16,8]) -> bf16[16,8] {
  %p = bf16[16,8]{1,0:T(8,128)(2,1)} parameter(0)
  %g = bf16[64,8]{1,0} all-gather(%p), channel_id=1, replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]) {'a'}, dimensions={0}
  ROOT %r = bf16[16,8]{1,0} fusion(%g), kind=kCustom, calls=%all-reduce-scatter.1
}
"""
    found = collectives(parse_program(text))
    assert found["all-gather"].bytes == 64 * 8 * 2 and found["all-gather"].traffic == 48 * 8 * 2
    assert found["reduce-scatter"].bytes == 16 * 8 * 2 and found["reduce-scatter"].traffic == 48 * 8 * 2
    assert "all-reduce" not in found


def test_a_branch_that_may_run_counts_in_full():
    """The sampling loop skips the padding of its last chunk by a branch; its steps must not count as half."""
    from tooncrafter_jax.planning.hlo import parse_program
    from tooncrafter_jax.planning.hlo_report import program_flops

    def run(go, x):
        return jax.lax.cond(go, lambda x: x @ x, lambda x: x, x)

    text = jax.jit(run).lower(jnp.asarray(True), jnp.ones((16, 16))).compile().as_text()
    assert text is not None
    assert program_flops(parse_program(text)) == 2 * 16**3


def test_products_of_attention_kernels_are_counted_beside_masks_of_many_blocks():
    """As the TPU's compiler writes one: 20 blocks of keys made the table of blocks look like queries."""
    from tooncrafter_jax.planning.hlo import parse_program
    from tooncrafter_jax.planning.hlo_report import program_flops

    text = """
HloModule m

ENTRY %main (b: s8[1,40,20], n: s32[1,40,20], q: bf16[8,40960,64], k: bf16[8,20480,64], v: bf16[8,20480,64]) -> bf16[8,40960,64] {
  %b = s8[1,40,20]{2,1,0} parameter(0)
  %n = s32[1,40,20]{2,1,0} parameter(1)
  %q = bf16[8,40960,64]{2,1,0} parameter(2)
  %k = bf16[8,20480,64]{2,1,0} parameter(3)
  %v = bf16[8,20480,64]{2,1,0} parameter(4)
  %splash_mha_fwd_no_residuals.1 = (f32[1024,128]{1,0}, bf16[8,40960,64]{2,1,0}) custom-call(%b, %n, %q, %k, %v), custom_call_target="tpu_custom_call"
  ROOT %out = bf16[8,40960,64]{2,1,0} get-tuple-element(%splash_mha_fwd_no_residuals.1), index=1
}
"""
    assert program_flops(parse_program(text)) == 4 * 8 * 40960 * 20480 * 64
