package dev.tidemark.engine.source.plan;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.engine.source.plan.DeviceRanges.Range;
import dev.tidemark.ffm.Pages;
import java.util.List;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

class DeviceRangesTest {
  private static final long SEED = Long.getLong("tidemark.seed", System.nanoTime());
  private static final long FOUR_GIB = 0x1_0000_0000L;

  private final DeviceRanges plan = new DeviceRanges();

  @BeforeEach
  void pagesOf4KiB() {
    Assumptions.assumeTrue(Pages.SIZE == 4096, "the addresses here are of 4 KiB pages");
  }

  private static Range range(long iova, long last) {
    return new Range(iova, last);
  }

  @Test
  void aSectionUpToFourGibIsBelowAndOneThatReachesItIsAbove() {
    plan.add(0xFFFF_F000L, 0x1000, true, false);
    plan.add(0x1000, 0x1000, true, false);
    plan.add(FOUR_GIB, 0x1000, true, false);
    assertEquals(
        List.of(range(0x1000, 0xFFFF_FFFFL), range(FOUR_GIB, FOUR_GIB + 0xFFF)), plan.ranges(256));
  }

  @Test
  void behindAVIommuAllThatTheGuestMayMapIsOneRange() {
    plan.add(0x1000, 0x1000, true, false);
    plan.add(FOUR_GIB, 0x1000, true, false);
    plan.add(0xF0_0000_0000L, 0x1000, true, true);
    plan.addVIommu(48);
    List<Range> all = List.of(range(0, 0xFFFF_FFFF_FFFFL));
    assertEquals(all, plan.ranges(256));
    assertEquals(all, plan.widened().ranges(3, 2 << 20));
    DeviceRanges small = new DeviceRanges();
    small.addVIommu(12);
    assertEquals(List.of(range(0, 0xFFF)), small.ranges(1));
    assertThrows(IllegalArgumentException.class, () -> plan.addVIommu(11));
    assertThrows(IllegalArgumentException.class, () -> plan.addVIommu(63));
  }

  @Test
  void aSectionAcrossFourGibIsAbove() {
    plan.add(0xFFFF_F000L, 0x2000, true, false);
    plan.add(0x10_0000_0000L, 0x1000, true, false);
    plan.add(0x1000, 0x1000, true, false);
    assertEquals(
        List.of(range(0x1000, 0x1FFF), range(0xFFFF_F000L, 0x10_0000_0FFFL)), plan.ranges(256));
  }

  @Test
  void deviceMemoryAboveFourGibHasARangeOfItsOwn() {
    plan.add(0, 0x8000_0000L, true, false);
    plan.add(FOUR_GIB, 0x8000_0000L, true, false);
    // Starts below: with the memory above, not with the windows.
    plan.add(0xFFFF_F000L, 0x2000, true, true);
    plan.add(0xF0_0000_0000L, 0x1000, true, true);
    plan.add(0x80_0000_0000L, 0x1000, true, true);
    // Below 4 GiB device memory is like any other.
    plan.add(0xE000_0000L, 0x1000, true, true);
    assertEquals(
        List.of(
            range(0, 0xE000_0FFFL),
            range(0xFFFF_F000L, 0x1_7FFF_FFFFL),
            range(0x80_0000_0000L, 0xF0_0000_0FFFL)),
        plan.ranges(256));
  }

  @Test
  void edgesAreMovedInwardsToWholePagesBeforeTheyAreSorted() {
    // From 0xFFFFFFFF the first whole page begins at 4 GiB.
    plan.add(0xFFFF_FFFFL, 0x1801, true, true);
    assertEquals(List.of(range(FOUR_GIB, FOUR_GIB + 0xFFF)), plan.ranges(1));
    // Up to 4 GiB and a half page there is no page above.
    plan.add(0xFFFF_EFFFL, 0x1801, true, false);
    assertEquals(
        List.of(range(0xFFFF_F000L, 0xFFFF_FFFFL), range(FOUR_GIB, FOUR_GIB + 0xFFF)),
        plan.ranges(256));
  }

  @Test
  void aWidePlanHasRoomBelowFourGibAndToTheNextPowerOfTwoAbove() {
    plan.add(0x1000, 0x1000, true, false);
    plan.add(FOUR_GIB + 0x5000, 0x1_4000_0000L, true, false);
    plan.add(0x80_0000_1000L, 0x1000, true, true);
    assertEquals(
        List.of(
            range(0, 0xFFFF_FFFFL),
            range(FOUR_GIB, 0x3_FFFF_FFFFL),
            range(0x80_0000_0000L, 0xFF_FFFF_FFFFL)),
        plan.widened().ranges(256));
    assertTrue(new DeviceRanges().widened().ranges(256).isEmpty());
    // The upper half of the space is left as it is, but for whole GiB.
    DeviceRanges high = new DeviceRanges();
    high.add(-0x8000_0000L, 0x1000, true, false);
    assertEquals(List.of(range(-0x8000_0000L, -0x4000_0001L)), high.widened().ranges(256));
  }

  @Test
  void rangesOfLargerPagesAreRoundedOutwardsAndJoinedWhereTheyMeet() {
    plan.add(0x1F_F000, 0x2000, true, false);
    plan.add(FOUR_GIB + 0x1000, 0x1000, true, false);
    assertEquals(
        List.of(range(0, 0x3F_FFFF), range(FOUR_GIB, FOUR_GIB + 0x1F_FFFF)),
        plan.ranges(256, 2 << 20));
    plan.add(0x80_0000_0000L, 0x1000, true, true);
    assertEquals(1, plan.ranges(256, 1L << 40).size());
    assertThrows(IllegalArgumentException.class, () -> plan.ranges(1, 12_288));
    assertThrows(IllegalArgumentException.class, () -> plan.ranges(1, 0));
  }

  @Test
  void whatNoDeviceWritesOrHoldsNoPageIsLeftOut() {
    plan.add(0xC_0000, 0x4_0000, false, false);
    plan.add(0x1001, 0x1FFE, true, false);
    plan.add(0x5000, 0, true, false);
    plan.add(-0x800, 0x7FF, true, false);
    assertTrue(plan.ranges(256).isEmpty());
    assertThrows(IllegalArgumentException.class, () -> plan.add(-0x1000, 0x2000, true, false));
  }

  @Test
  void rangesAreJoinedWhereTheyOverlapAndAsTheDeviceNeeds() {
    plan.add(0, 0x1000, true, false);
    plan.add(FOUR_GIB, 0x1000, true, false);
    plan.add(0x80_0000_0000L, 0x1000, true, true);
    assertEquals(3, plan.ranges(3).size());
    assertEquals(
        List.of(range(0, FOUR_GIB + 0xFFF), range(0x80_0000_0000L, 0x80_0000_0FFFL)),
        plan.ranges(2));
    assertEquals(List.of(range(0, 0x80_0000_0FFFL)), plan.ranges(1));
    assertThrows(IllegalArgumentException.class, () -> plan.ranges(0));
    // Memory behind a window: the kernel refuses ranges that overlap.
    plan.add(0x90_0000_0000L, 0x1000, true, false);
    assertEquals(List.of(range(0, 0xFFF), range(FOUR_GIB, 0x90_0000_0FFFL)), plan.ranges(256));
  }

  @Test
  void everyWritablePageIsInARangeAndRangesAreApart() {
    var random = new SplittableRandom(SEED);
    for (int trial = 0; trial < 2_000; trial++) {
      String at = "seed " + SEED + ", trial " + trial;
      DeviceRanges ranges = new DeviceRanges();
      long[] starts = new long[1 + random.nextInt(8)];
      for (int i = 0; i < starts.length; i++) {
        long page = random.nextLong(1L << 1 + random.nextInt(26));
        starts[i] = page << 12;
        ranges.add(starts[i], 0x1000L * (1 + random.nextInt(3)), true, random.nextBoolean());
      }
      int most = 1 + random.nextInt(4);
      List<Range> planned = ranges.ranges(most);
      assertTrue(planned.size() <= most, at);
      for (long start : starts) {
        assertTrue(
            planned.stream().anyMatch(r -> r.iova() <= start && start + 0xFFF <= r.last()), at);
      }
      for (int i = 1; i < planned.size(); i++) {
        assertTrue(planned.get(i - 1).last() < planned.get(i).iova(), at);
      }
    }
  }
}
