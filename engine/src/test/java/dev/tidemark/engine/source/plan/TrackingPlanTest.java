package dev.tidemark.engine.source.plan;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.engine.source.plan.TrackingPlan.Tracker;
import java.util.List;
import org.junit.jupiter.api.Test;

class TrackingPlanTest {
  private static DeviceFacts device(
      String name, OnOffAuto tracking, boolean logs, boolean pageTableTracks) {
    return new DeviceFacts(name, OnOffAuto.AUTO, tracking, true, true, logs, pageTableTracks, null);
  }

  private static TrackingPlan.Container plan(boolean type1, DeviceFacts... devices) {
    var limits = type1 ? new ContainerFacts.Type1Limits(256 << 20, 4096) : null;
    ContainerFacts facts = new ContainerFacts("c0", false, limits, List.of(devices));
    return TrackingPlan.of(new MachineFacts(1 << 30, List.of(), List.of(facts)))
        .containers()
        .getFirst();
  }

  @Test
  void devicesTrackOnlyIfAllOfThemDo() {
    DeviceFacts logs = device("logs", OnOffAuto.AUTO, true, true);
    DeviceFacts plain = device("plain", OnOffAuto.AUTO, false, true);
    DeviceFacts off = device("off", OnOffAuto.OFF, true, true);
    assertEquals(Tracker.DEVICE, plan(false, logs, logs).tracker());
    assertTrue(plan(false, logs).reasons().isEmpty());
    assertEquals(Tracker.IOMMU, plan(false, logs, plain).tracker());
    assertEquals(
        List.of("off is told not to log its DMA (device tracking off)"),
        plan(false, logs, off).reasons());
    assertEquals(Tracker.IOMMU, plan(false, logs, off).tracker());
    assertEquals(Tracker.DEVICE, plan(true, logs).tracker());
    assertEquals(Tracker.TYPE1, plan(true, logs, off).tracker());
  }

  @Test
  void onePageTableThatDoesNotTrackMakesEverythingDirty() {
    DeviceFacts tracks = device("a", OnOffAuto.AUTO, false, true);
    DeviceFacts not = device("b", OnOffAuto.AUTO, true, false);
    TrackingPlan.Container plan = plan(false, tracks, not);
    assertEquals(Tracker.NONE, plan.tracker());
    assertEquals(
        """
        c0: nothing tracks: every writable mapped page counts as dirty
          because a does not log its DMA
          because the page table of b does not track""",
        plan.toString());
  }

  @Test
  void everyContainerIsPlannedForItself() {
    ContainerFacts one =
        new ContainerFacts("one", false, null, List.of(device("a", OnOffAuto.AUTO, true, false)));
    ContainerFacts two =
        new ContainerFacts("two", true, null, List.of(device("b", OnOffAuto.AUTO, false, true)));
    TrackingPlan plan = TrackingPlan.of(new MachineFacts(1 << 30, List.of(), List.of(one, two)));
    assertEquals(
        List.of(Tracker.DEVICE, Tracker.IOMMU),
        plan.containers().stream().map(TrackingPlan.Container::tracker).toList());
  }

  @Test
  void type1LimitsDoNotOverflow() {
    assertEquals(8L << 40, new ContainerFacts.Type1Limits(256 << 20, 4096).bytes());
    assertEquals(Long.MAX_VALUE, new ContainerFacts.Type1Limits(256 << 20, 1L << 40).bytes());
    assertEquals(Long.MAX_VALUE, new ContainerFacts.Type1Limits(Long.MAX_VALUE, 4096).bytes());
  }
}
