package dev.tidemark.engine.source.plan;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.engine.source.dma.DeviceLogSource;
import dev.tidemark.engine.source.plan.Blockers.Outcome;
import dev.tidemark.engine.source.plan.DeviceProbe.LogTrial;
import dev.tidemark.engine.source.plan.TrackingPlan.Tracker;
import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.iommufd.Ioas;
import dev.tidemark.ffm.iommufd.Iommufd;
import dev.tidemark.ffm.lab.DmaDevice;
import dev.tidemark.ffm.lab.LabDevices;
import dev.tidemark.ffm.lab.MockIommu;
import dev.tidemark.ffm.vfio.DmaRange;
import dev.tidemark.ffm.vfio.VfioGroup;
import dev.tidemark.ffm.vfio.VfioHostDevice;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import java.util.stream.Stream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/** What the real devices of the lab say of themselves, and what follows. */
class DeviceProbeTest {
  private static final long GIB = 1L << 30;

  private static VfioHostDevice host(LabDevices device) {
    return VfioHostDevice.list().stream()
        .filter(found -> found.name().equals(device.name()))
        .findFirst()
        .orElseThrow();
  }

  private static DeviceFacts facts(DeviceProbe probe) {
    return probe.facts(OnOffAuto.AUTO, OnOffAuto.AUTO);
  }

  private static MachineFacts machine(ContainerFacts.Type1Limits type1, DeviceFacts... devices) {
    return new MachineFacts(
        GIB, List.of(), List.of(new ContainerFacts("c0", false, type1, List.of(devices))));
  }

  private static void verdict(MachineFacts machine, Tracker tracker, Outcome... outcomes) {
    Blockers blockers = Blockers.of(machine);
    System.out.println(TrackingPlan.of(machine) + "\n" + blockers);
    assertEquals(tracker, TrackingPlan.of(machine).containers().getFirst().tracker());
    assertEquals(
        List.of(outcomes), blockers.devices().stream().map(Blockers.Device::outcome).toList());
  }

  private static long openFiles() throws IOException {
    try (Stream<Path> files = Files.list(Path.of("/proc/self/fd"))) {
      return files.count();
    }
  }

  /** Through IOMMUFD and by its group: the same, and nothing stays open. */
  private static void saysOfItself(LabDevices names, long migrationFlags, boolean logs)
      throws IOException {
    VfioHostDevice device = host(names);
    DeviceProbe.of(device);
    long before = openFiles();
    DeviceProbe byCdev = DeviceProbe.of(device);
    assertEquals(DeviceProbe.IOMMUFD, byCdev.container());
    assertEquals(migrationFlags, byCdev.migrationFlags());
    assertEquals(logs, byCdev.logsDma());
    assertNull(byCdev.limits());
    DeviceProbe byGroup = DeviceProbe.throughType1(device, LogTrial.NONE);
    assertEquals(DeviceProbe.TYPE1, byGroup.container());
    assertEquals(migrationFlags, byGroup.migrationFlags());
    assertEquals(logs, byGroup.logsDma());
    assertEquals(new ContainerFacts.Type1Limits(256 << 20, 4096), byGroup.limits());
    assertEquals(before, openFiles());
  }

  @Test
  @Tag("lab-mock")
  @Tag("lab-vtd")
  void eachDeviceOfOurOwnSaysWhatItHas() throws IOException {
    saysOfItself(LabDevices.dmalog(DmaDevice.PLAIN), 0, true);
    saysOfItself(LabDevices.dmalog(DmaDevice.STOP_COPY), 1, true);
    saysOfItself(LabDevices.dmalog(DmaDevice.P2P), 3, true);
    saysOfItself(LabDevices.dmalog(DmaDevice.PRE_COPY), 5, true);
    saysOfItself(LabDevices.dmalog(DmaDevice.FULL), 7, true);
    saysOfItself(LabDevices.mtty(), 7, true);
  }

  @Test
  @Tag("lab-mock")
  @Tag("lab-vtd")
  void devicesOfOurOwnTogetherAreBlockedWithoutP2p() {
    DeviceFacts p2p = facts(DeviceProbe.of(host(LabDevices.dmalog(DmaDevice.P2P))));
    DeviceFacts full = facts(DeviceProbe.of(host(LabDevices.dmalog(DmaDevice.FULL))));
    DeviceFacts without = facts(DeviceProbe.of(host(LabDevices.dmalog(DmaDevice.PRE_COPY))));
    DeviceFacts plain = facts(DeviceProbe.of(host(LabDevices.dmalog(DmaDevice.PLAIN))));
    verdict(machine(null, p2p, full), Tracker.DEVICE, Outcome.MIGRATES, Outcome.MIGRATES);
    verdict(machine(null, p2p, without), Tracker.DEVICE, Outcome.BLOCKED, Outcome.BLOCKED);
    verdict(machine(null, p2p, plain), Tracker.DEVICE, Outcome.MIGRATES, Outcome.BLOCKED);
  }

  @Test
  @Tag("lab-mock")
  @Tag("lab-vtd")
  void aLogIsTriedWithAllThatAGuestMayMapBehindAVIommu() throws IOException {
    VfioHostDevice device = host(LabDevices.dmalog(DmaDevice.P2P));
    DeviceProbe.of(device);
    long before = openFiles();
    DeviceRanges all = new DeviceRanges();
    all.addVIommu(48);
    LogTrial takes = open -> DeviceLogSource.refusal(open, all);
    assertNull(DeviceProbe.of(device, takes).logRefusal());
    assertNull(DeviceProbe.throughType1(device, takes).logRefusal());
    // The driver's word for it, where it is the driver that refuses.
    LogTrial refuses =
        open ->
            Optional.of(
                assertThrows(
                        LinuxException.class,
                        () ->
                            open.dmaLoggingStart(
                                4096, List.of(new DmaRange(0, -4096), new DmaRange(0, 4096))))
                    .getMessage());
    DeviceProbe probe = DeviceProbe.of(device, refuses);
    assertTrue(probe.logRefusal().contains("DMA_LOGGING_START"), probe.logRefusal());
    assertEquals(probe.logRefusal(), facts(probe).logRefusal());
    ContainerFacts container = new ContainerFacts("c0", true, null, List.of(facts(probe)));
    verdict(new MachineFacts(GIB, List.of(), List.of(container)), Tracker.DEVICE, Outcome.BLOCKED);
    assertEquals(before, openFiles());
  }

  @Test
  @Tag("lab-mock")
  void mockPageTablesTrackOrNot() {
    try (Iommufd iommufd = Iommufd.open();
        Ioas ioas = iommufd.allocIoas()) {
      MockIommu mock = new MockIommu(iommufd);
      MockIommu.Device tracks = mock.addDevice(ioas, 0);
      MockIommu.Device not = mock.addDevice(ioas, MockIommu.MOCK_FLAGS_DEVICE_NO_DIRTY);
      assertEquals(Optional.empty(), DeviceProbe.trackingMissing(iommufd, tracks.deviceId()));
      String why = DeviceProbe.trackingMissing(iommufd, not.deviceId()).orElseThrow();
      assertTrue(why.contains("IOMMU_HWPT_ALLOC") && why.contains("EOPNOTSUPP"), why);
      // A device of our own as if it were behind each.
      DeviceProbe full = DeviceProbe.of(host(LabDevices.dmalog(DmaDevice.FULL)));
      DeviceFacts behindOne = behind(full, true);
      DeviceFacts behindOther = behind(full, false);
      verdict(machine(null, behindOne), Tracker.IOMMU, Outcome.MIGRATES);
      verdict(machine(null, behindOther), Tracker.NONE, Outcome.BLOCKED);
      verdict(
          machine(null, behindOne, behindOther),
          Tracker.NONE,
          Outcome.MIGRATES_WITH_WARNING,
          Outcome.BLOCKED);
      mock.removeDevice(tracks);
      mock.removeDevice(not);
    }
  }

  private static DeviceFacts behind(DeviceProbe probe, boolean tracks) {
    DeviceFacts facts = probe.facts(OnOffAuto.AUTO, OnOffAuto.OFF);
    return new DeviceFacts(
        facts.name(),
        facts.migration(),
        facts.deviceTracking(),
        facts.stopCopy(),
        facts.p2p(),
        facts.logsDma(),
        tracks,
        null);
  }

  @Test
  @Tag("lab-vtd")
  void thePciDeviceNeitherMigratesNorTracks() throws IOException {
    saysOfItself(LabDevices.pci(), 0, false);
    DeviceProbe pci = DeviceProbe.of(host(LabDevices.pci()));
    assertTrue(pci.pageTable().contains("EOPNOTSUPP"), pci.pageTable());
    verdict(machine(null, facts(pci)), Tracker.NONE, Outcome.BLOCKED);
    DeviceProbe byGroup = DeviceProbe.throughType1(host(LabDevices.pci()), LogTrial.NONE);
    verdict(machine(byGroup.limits(), facts(byGroup)), Tracker.TYPE1, Outcome.BLOCKED);
    // It also decides for a device that logs, beside it.
    DeviceFacts logs = facts(DeviceProbe.of(host(LabDevices.dmalog(DmaDevice.FULL))));
    verdict(
        machine(null, logs, facts(pci)),
        Tracker.NONE,
        Outcome.MIGRATES_WITH_WARNING,
        Outcome.BLOCKED);
  }

  @Test
  @Tag("lab-mock")
  @Tag("lab-vtd")
  void aDeviceThatSomebodyHasIsNotTouched() {
    VfioHostDevice device = host(LabDevices.dmalog(DmaDevice.FULL));
    try (Iommufd iommufd = Iommufd.open();
        DmaDevice held = DmaDevice.open(DmaDevice.FULL, iommufd)) {
      assertEquals(Errno.EINVAL, refused(device).errno());
      String why = refused(device).getMessage();
      assertTrue(why.contains("bound already, also by another process"), why);
      assertEquals(
          Errno.EBUSY,
          assertThrows(LinuxException.class, () -> DeviceProbe.throughType1(device, LogTrial.NONE))
              .errno());
      // Still its own, and as it was.
      assertEquals(7, held.vfio().migrationFlags());
    }
    try (VfioGroup group = VfioGroup.open(device.group().orElseThrow())) {
      assertEquals(Errno.EBUSY, refused(device).errno());
      assertEquals(1, group.status());
    }
    assertEquals(7, DeviceProbe.of(device).migrationFlags());
  }

  private static LinuxException refused(VfioHostDevice device) {
    return assertThrows(LinuxException.class, () -> DeviceProbe.of(device));
  }

  @Test
  void aDeviceWithoutAnyNodeSaysWhatItNeeds() {
    VfioHostDevice bare = new VfioHostDevice("bare", "", Optional.empty(), Optional.empty());
    assertTrue(refused(bare).getMessage().startsWith("bare has no group"));
    assertTrue(
        assertThrows(LinuxException.class, () -> DeviceProbe.throughIommufd(bare, LogTrial.NONE))
            .getMessage()
            .contains("CONFIG_VFIO_DEVICE_CDEV"));
  }
}
