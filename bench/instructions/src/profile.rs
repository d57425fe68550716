//! [`instructions`]: what a profile of Callgrind says.

/// The instructions that the program itself executed in each part of a profile in which names are not compressed; parts
/// without any are left out.
///
/// A part has sections, which begin with the object (`ob=`) that its functions are in. In it stand lines of a function's own
/// cost, `LINE COST`, and calls: `calls=COUNT LINE`, and then a line with the cost of what was called, which is not the
/// caller's own.
///
/// Source: <https://valgrind.org/docs/manual/cl-format.html>
pub(crate) fn instructions(profile: &str, program: &str) -> Vec<u64> {
    let mut parts = Vec::new();
    let (mut sum, mut is_own, mut is_cost_of_call) = (0, false, false);
    for line in profile.lines() {
        if line.starts_with("part:") {
            (sum, is_own) = (0, false);
        } else if let Some(object) = line.strip_prefix("ob=") {
            is_own = object.rsplit('/').next() == Some(program);
        } else if line.starts_with("calls=") {
            is_cost_of_call = true;
        } else if line.starts_with("totals:") {
            parts.extend((sum > 0).then_some(sum));
        } else if line.starts_with(|first: char| first.is_ascii_digit()) {
            let cost = line.split(' ').nth(1).and_then(|cost| cost.parse().ok()).unwrap_or(0);
            sum += if is_own && !is_cost_of_call { cost } else { 0 };
            is_cost_of_call = false;
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_program_itself_executes_counts() {
        let profile = "part: 1\nevents: Ir\n\nob=/lib/libc.so.6\nfl=???\nfn=malloc\n0 70\n\n\
            ob=/x/taba\nfl=a.rs\nfn=taba::fold\n3 10\nfi=b.rs\n4 5\ncfn=taba::merge\ncalls=2 9\n4 900\n\
            cob=/lib/libc.so.6\ncfi=???\ncfn=malloc\ncalls=3 0\n5 60\nfe=a.rs\n6 1\ncfn=taba::merge\ncalls=7 9\n6 80\n\n\
            totals: 1126\npart: 2\nob=/x/taba\nfn=taba::one\n1 4\n\ntotals: 4\npart: 3\n\ntotals: 0\n";
        assert_eq!(instructions(profile, "taba"), [16, 4]);
    }
}
