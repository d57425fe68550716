//! [`Dice`]: chance that comes out the same for the same seed.

/// The step of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A number that looks random, the same for the same `n`: SplitMix64.
pub fn chance(seed: u64, n: u64) -> u64 {
    let mut z = seed.wrapping_add(n.wrapping_add(1).wrapping_mul(STEP));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Chance by the throw. Two dice of one seed fall alike.
#[derive(Clone, Debug)]
pub struct Dice {
    seed: u64,
    throws: u64,
}

impl Dice {
    /// Dice of this seed.
    pub const fn new(seed: u64) -> Self {
        Self { seed, throws: 0 }
    }

    /// Dice of their own for one purpose, so that more throws there change nothing here.
    pub fn of(seed: u64, purpose: u64) -> Self {
        Self::new(chance(seed, purpose))
    }

    /// A number from 0 to `sides`, `sides` excluded.
    ///
    /// # Panics
    /// When there are no sides.
    pub fn below(&mut self, sides: u64) -> u64 {
        self.throws += 1;
        chance(self.seed, self.throws) % sides
    }

    /// One of these.
    ///
    /// # Panics
    /// When there are none.
    pub fn choose<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.below(among.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_falls_alike_and_another_does_not() {
        let throws = |seed| {
            let mut dice = Dice::new(seed);
            (0..100).map(|_| dice.below(6)).collect::<Vec<_>>()
        };
        assert_eq!(throws(1), throws(1));
        assert_ne!(throws(1), throws(2));
        assert!((0..6).all(|side| throws(1).contains(&side)));
    }
}
