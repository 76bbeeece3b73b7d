use super::*;

/// A cluster whose pods come and go one by one between two looks, in the worst order for the bounds.
struct World {
    old: Side,
    new: Side,
}

impl World {
    fn step(&mut self) {
        for side in [&mut self.old, &mut self.new] {
            if side.there < side.wanted {
                side.there += 1;
            } else if side.there > side.wanted {
                side.there -= 1;
                side.available = side.available.min(side.there);
            } else if side.available < side.there {
                side.available += 1;
            }
            side.settled = side.there == side.wanted;
        }
    }
}

fn settled(wanted: u32, available: u32) -> Side {
    Side { wanted, there: wanted, available, settled: true }
}

fn roll(from: u32, surge: u32, unavailable: u32) -> u32 {
    let bounds = Bounds { goal: from, rest: 0, least: from.saturating_sub(unavailable), most: from + surge };
    let mut world = World { old: settled(from, from), new: settled(0, 0) };
    let mut moves = 0;
    for _ in 0..1000 {
        match next(world.old, world.new, bounds) {
            Next::Done => {
                assert_eq!((world.old.wanted, world.new.available), (0, from));
                return moves;
            }
            Next::Grow(to) => {
                world.new.wanted = to;
                world.new.settled = false;
                moves += 1;
            }
            Next::Shrink(to) => {
                world.old.wanted = to;
                world.old.settled = false;
                moves += 1;
            }
            Next::Wait => {}
        }
        world.step();
        let (available, there) = (world.old.available + world.new.available, world.old.there + world.new.there);
        assert!(
            available >= bounds.least && there <= bounds.most,
            "{available} of {there}, {from} +{surge} -{unavailable}"
        );
    }
    panic!("it never ends: {from} +{surge} -{unavailable}");
}

#[test]
fn every_rolling_update_ends_within_its_bounds() {
    for from in 0..=9 {
        for surge in 0..=4 {
            for unavailable in 0..=4 {
                if surge + unavailable > 0 {
                    roll(from, surge, unavailable);
                }
            }
        }
    }
    // "keep 4 pods available, don't exceed 5": four up, four down.
    assert_eq!(roll(4, 1, 0), 8);
}

#[test]
fn nothing_moves_before_the_last_move_is_seen() {
    let bounds = Bounds { goal: 4, rest: 0, least: 4, most: 5 };
    let unsettled = Side { wanted: 1, there: 0, available: 0, settled: false };
    assert_eq!(next(settled(4, 4), unsettled, bounds), Next::Wait);
    assert_eq!(next(settled(4, 4), settled(1, 0), bounds), Next::Wait);
    assert_eq!(next(settled(4, 4), settled(1, 1), bounds), Next::Shrink(3));
    // Old pods that serve nobody may go although none is to spare.
    assert_eq!(next(settled(4, 2), settled(1, 1), bounds), Next::Shrink(2));
}
