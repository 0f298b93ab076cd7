//! Four computations, the same source for a guest and for a native program: each prints its name and the nanoseconds of its
//! fastest of a few rounds.

use std::hint::black_box;
use std::time::Instant;

const ROUNDS: usize = 5;

fn main() {
    for (name, kernel) in [("integer", integer as fn() -> u64), ("float", float), ("memory", memory), ("simd", simd)] {
        let mut fastest = u128::MAX;
        for _ in 0..ROUNDS {
            let start = Instant::now();
            black_box(kernel());
            fastest = fastest.min(start.elapsed().as_nanos());
        }
        println!("{name} {fastest}");
    }
}

/// A hash over numbers, with branches: multiplications, shifts, a division now and then.
fn integer() -> u64 {
    let mut hash = black_box(0xcbf2_9ce4_8422_2325_u64);
    for number in 0..40_000_000_u64 {
        hash = (hash ^ number).wrapping_mul(0x0100_0000_01b3);
        hash ^= hash >> 29;
        if hash & 0xff == 7 {
            hash = hash.wrapping_add(hash / (number | 1));
        }
    }
    hash
}

/// Points of the Mandelbrot set: chains of double precision arithmetic.
fn float() -> u64 {
    const SIZE: usize = 400;
    let mut inside = 0;
    for row in 0..SIZE {
        for column in 0..SIZE {
            let (a, b) = (column as f64 * 3.0 / SIZE as f64 - 2.0, row as f64 * 2.0 / SIZE as f64 - 1.0);
            let (mut x, mut y, mut steps) = (0.0_f64, 0.0_f64, 0);
            while x * x + y * y <= 4.0 && steps < 300 {
                (x, y) = (x * x - y * y + a, 2.0 * x * y + b);
                steps += 1;
            }
            inside += u64::from(steps == 300);
        }
    }
    inside
}

/// Primes by sieve, and a walk through memory in an order that no prefetcher guesses.
fn memory() -> u64 {
    const SIZE: usize = 8 << 20;
    let mut sieve = vec![1_u8; SIZE];
    let mut number = 2;
    while number * number < SIZE {
        if sieve[number] == 1 {
            let mut multiple = number * number;
            while multiple < SIZE {
                sieve[multiple] = 0;
                multiple += number;
            }
        }
        number += 1;
    }
    let (mut at, mut sum) = (1_usize, 0_u64);
    for _ in 0..2_000_000 {
        sum += u64::from(sieve[at]);
        at = (at.wrapping_mul(1_103_515_245).wrapping_add(12_345)) & (SIZE - 1);
    }
    sum
}

/// Sums of products in single precision, four lanes at a time: what compilers make vectors of.
fn simd() -> u64 {
    const SIZE: usize = 1 << 14;
    let left: Vec<f32> = (0..SIZE).map(|number| number as f32 * 0.5).collect();
    let right: Vec<f32> = (0..SIZE).map(|number| 1.0 / (number as f32 + 1.0)).collect();
    let mut total = 0.0_f32;
    for round in 0..2_000 {
        let mut lanes = [round as f32; 8];
        for (left, right) in black_box(&left).chunks_exact(8).zip(black_box(&right).chunks_exact(8)) {
            for lane in 0..8 {
                lanes[lane] += left[lane] * right[lane];
            }
        }
        total += lanes.iter().sum::<f32>();
    }
    total as u64
}
