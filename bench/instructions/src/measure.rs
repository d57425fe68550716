//! [`operation`]: the boundary at which Callgrind counts.

use std::hint::black_box;

use allocation_counter::measure;

/// Callgrind counts what runs inside this function, and writes one part of its profile at each return: `scripts/instructions` names
/// it to Callgrind.
#[inline(never)]
fn measured_operation(run: &mut dyn FnMut()) {
    run();
    // Callgrind sees no return of a function whose last call is a jump.
    black_box(());
}

/// Runs an operation twice, and prints its name and how often this thread allocated memory in it: the first time fills what is
/// made once (thread-locals, tables, memory of the allocator), the second is counted. The input is made, and the result dropped,
/// outside the count.
#[expect(clippy::print_stdout, reason = "one line for each part of the profile, in order")]
pub(crate) fn operation<T, R>(name: &str, mut input: impl FnMut() -> T, mut run: impl FnMut(T) -> R) {
    drop(black_box(run(input())));
    let (mut given, mut result) = (Some(input()), None);
    let allocated = measure(|| {
        measured_operation(&mut || {
            if let Some(input) = given.take() {
                result = Some(run(black_box(input)));
            }
        });
    });
    black_box(result);
    println!("{name} {}", allocated.count_total);
}

/// A number below `below` that looks random and is the same in every run: the finaliser of splitmix64 over `n`.
///
/// Source: S. Vigna, splitmix64.c.
pub(crate) fn noise(n: usize, below: u64) -> u64 {
    let mut z = (n as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % below
}
