from tests.eight_devices import EightDevices
from tests.programs.sent import check_collectives
from vit_jax.analysis.collectives import collectives


def test_collectives_of_loops_and_gradients(eight_devices: EightDevices) -> None:
    eight_devices.run(check_collectives)


# As a compiler writes them that lets products run meanwhile; see the operations' semantics at
# openxla.org/xla/operation_semantics. The arrays have 1,024 and 4,096 bytes; a sum is cut
# into eighths.
UNDER_WAY = """
ENTRY %main (a: f32[256], b: bf16[2048]) -> f32[] {
  %s = (f32[256], bf16[2048]) all-reduce-start(%a, %b), channel_id=1, to_apply=%add
  %g = ((f32[32], bf16[256]), (f32[256], bf16[2048])) all-gather-start(%c, %d), channel_id=2
  %r = ((f32[256]), f32[32]{0:T(128)}, u32[]{:S(2)}) reduce-scatter-start(%a), channel_id=3
  %p = (f32[256], f32[256], u32[]{:S(2)}, u32[]) collective-permute-start(%a), channel_id=4
  %t = (bf16[2048], u32[]{:S(2)}, token[]) send(%b, %after), channel_id=5
  %n = (f32[256], u32[]) all-reduce(%a, %count), channel_id=6, to_apply=%add
}
"""


def test_collectives_that_are_under_way_count_by_their_results() -> None:
    sent = {c.kind: (c.shapes, c.bytes) for c in collectives(UNDER_WAY)[:-1]}
    assert sent == {
        "all-reduce": (((256,), (2048,)), 1024 + 4096),
        "all-gather": (((256,), (2048,)), 1024 + 4096),
        "reduce-scatter": (((32,),), 1024 // 8),
        "collective-permute": (((256,),), 1024),
        "send": (((2048,),), 4096),
    }
    assert collectives(UNDER_WAY)[-1].bytes == 1024 + 4
