"""What operations of a compiled program touch, on a program that is small enough to count."""

from benchmarks.operations import operations

# Rows of eight numbers are doubled one by one and put in a stack, then multiplied by a matrix.
PROGRAM = """\
HloModule jit_f, is_scheduled=true

%fused_update (param_0.1: f32[4,8], param_1.1: f32[4,8], param_2.1: s32[]) -> f32[4,8] {
  %param_0.1 = f32[4,8]{1,0} parameter(0)
  %param_1.1 = f32[4,8]{1,0:S(1)} parameter(1)
  %param_2.1 = s32[] parameter(2)
  %zero = s32[] constant(0)
  %slice.1 = f32[1,8]{1,0} dynamic-slice(%param_1.1, %param_2.1, %zero), dynamic_slice_sizes={1,8}
  %twice = f32[1,8]{1,0} add(%slice.1, %slice.1)
  ROOT %update = f32[4,8]{1,0} dynamic-update-slice(%param_0.1, %twice, %param_2.1, %zero)
}

%body (state: (s32[], f32[4,8], f32[4,8])) -> (s32[], f32[4,8], f32[4,8]) {
  %state = (s32[], f32[4,8]{1,0}, f32[4,8]{1,0:S(1)}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %stack = f32[4,8]{1,0} get-tuple-element(%state), index=1
  %rows = f32[4,8]{1,0:S(1)} get-tuple-element(%state), index=2
  %fused = f32[4,8]{1,0} fusion(%stack, %rows, %i), calls=%fused_update, metadata={op_name="twice"}
  ROOT %next = (s32[], f32[4,8]{1,0}, f32[4,8]{1,0:S(1)}) tuple(%i, %fused, %rows)
}

%less (state.1: (s32[], f32[4,8], f32[4,8])) -> pred[] {
  %state.1 = (s32[], f32[4,8]{1,0}, f32[4,8]{1,0:S(1)}) parameter(0)
  %i.1 = s32[] get-tuple-element(%state.1), index=0
  %bound = s32[] constant(4)
  ROOT %is_less = pred[] compare(%i.1, %bound), direction=LT
}

ENTRY %main (rows.1: f32[4,8], matrix: bf16[8,16]) -> f32[4,16] {
  %rows.1 = f32[4,8]{1,0} parameter(0)
  %matrix = bf16[8,16]{1,0} parameter(1)
  %start = s32[] constant(0)
  %empty = f32[4,8]{1,0} custom-call(), custom_call_target="AllocateBuffer"
  %copy-start = (f32[4,8]{1,0:S(1)}, f32[4,8]{1,0}, u32[]{:S(2)}) copy-start(%rows.1)
  %copy-done = f32[4,8]{1,0:S(1)} copy-done(%copy-start)
  %first = (s32[], f32[4,8]{1,0}, f32[4,8]{1,0:S(1)}) tuple(%start, %empty, %copy-done)
  %loop = (s32[], f32[4,8]{1,0}, f32[4,8]{1,0:S(1)}) while(%first), condition=%less, body=%body
  %doubled = f32[4,8]{1,0} get-tuple-element(%loop), index=1
  ROOT %convolution = f32[4,16]{1,0} convolution(%doubled, %matrix), dim_labels=bf_io->bf
}
"""


def test_trips_slices_and_updates_are_counted() -> None:
    copy, twice, product = operations(PROGRAM)
    assert (copy.kind, copy.times, copy.bytes, copy.slow_bytes) == ("copy-start", 1, 256, 128)
    # A row is read in fast memory and written in the device's, and the counter is read; the rest
    # of the stack is not touched.
    assert (twice.source, twice.times) == ("twice", 4)
    assert (twice.bytes, twice.slow_bytes) == (32 + 32 + 4, 32 + 4)
    assert product.bytes == product.slow_bytes == 4 * 8 * 4 + 8 * 16 * 2 + 4 * 16 * 4
    assert product.flops == 2 * 4 * 8 * 16


def _flops(left: str, right: str, result: str, options: str) -> int:
    (product,) = operations(
        f"ENTRY %main (l: f32[{left}], r: f32[{right}]) -> f32[{result}] {{\n"
        f"  %l = f32[{left}] parameter(0)\n  %r = f32[{right}] parameter(1)\n"
        f"  ROOT %c = f32[{result}] convolution(%l, %r), {options}\n}}\n"
    )
    return product.flops


def test_products_of_every_form_have_their_multiply_adds() -> None:
    # Patches of 16 pixels.
    options = "window={size=16x16 stride=16x16}, dim_labels=b01f_01io->b01f"
    assert _flops("2,32,32,3", "16,16,3,8", "2,2,2,8", options) == 2 * (2 * 2 * 2) * 16 * 16 * 3 * 8
    # The scores of 2 examples and 3 heads, as a TPU's compiler writes batches.
    options = "window={size=2x3 stride=1x2 lhs_dilate=2x3}, dim_labels=0b1f_0o1i->01bf"
    assert _flops("2,5,3,4", "2,5,3,4", "2,3,5,5", options) == 2 * 2 * 3 * 5 * 5 * 4
    # Heads as a window that meets one of them at a time.
    options = "window={size=1x3 pad=0_0x2_2 rhs_reversal=0x1}, dim_labels=0bf1_i1o0->0b1f"
    assert _flops("2,5,8,1", "8,3,4,1", "2,5,3,4", options) == 2 * 2 * 5 * 3 * 4 * 8
