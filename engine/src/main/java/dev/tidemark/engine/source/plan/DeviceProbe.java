package dev.tidemark.engine.source.plan;

import dev.tidemark.engine.source.plan.ContainerFacts.Type1Limits;
import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.iommufd.Ioas;
import dev.tidemark.ffm.iommufd.Iommufd;
import dev.tidemark.ffm.iommufd.IommufdUapi;
import dev.tidemark.ffm.vfio.VfioContainer;
import dev.tidemark.ffm.vfio.VfioDevice;
import dev.tidemark.ffm.vfio.VfioGroup;
import dev.tidemark.ffm.vfio.VfioHostDevice;
import dev.tidemark.ffm.vfio.VfioUapi;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Optional;

/**
 * What a VFIO device can do for a migration: asked of the device, its IOMMU and its container,
 * never guessed from the kernel's version. Nothing is attached or mapped, nothing is started but a
 * log, if one is tried, and nothing stays open.
 *
 * @param name what its bus knows it by
 * @param path what was opened
 * @param migrationFlags {@code VFIO_MIGRATION_} bits, 0 if it cannot migrate
 * @param logsDma whether it logs its own DMA
 * @param logRefusal why its log cannot take what it was tried with; null if it can, and if it was
 *     not tried
 * @param pageTableTracks whether page tables for it track
 * @param pageTable what the kernel says of that
 * @param container {@link #IOMMUFD} or {@link #TYPE1}
 * @param limits the type1 container's; null if it does not track, and with IOMMUFD
 */
public record DeviceProbe(
    String name,
    String path,
    long migrationFlags,
    boolean logsDma,
    String logRefusal,
    boolean pageTableTracks,
    String pageTable,
    String container,
    Type1Limits limits) {
  /** {@link #container()} of a device behind IOMMUFD. */
  public static final String IOMMUFD = "IOMMUFD";

  /** {@link #container()} of a device in a group. */
  public static final String TYPE1 = "type1";

  /** Tries the log of a device that is open and does not log. */
  @FunctionalInterface
  public interface LogTrial {
    /** Tries nothing. */
    LogTrial NONE = device -> Optional.empty();

    /**
     * Starts the log and stops it again, as {@code DeviceLogSource.refusal} does.
     *
     * @return why it does not start; empty if it does
     */
    Optional<String> refusal(VfioDevice device);
  }

  /** As {@link #of(VfioHostDevice, LogTrial)}, without a trial. */
  public static DeviceProbe of(VfioHostDevice device) {
    return of(device, LogTrial.NONE);
  }

  /**
   * Opens a device of the host, asks it and closes it: through IOMMUFD, or where there is no
   * character device or no {@code /dev/iommu} through its group. Opening a PCI device may reset it;
   * one that somebody has open is refused by the kernel and not touched.
   *
   * @param trial of its log, if it has one
   * @throws LinuxException if it cannot be opened, such as {@code EBUSY}, {@code EACCES}, or {@code
   *     EINVAL} of its bind, if somebody has it
   */
  public static DeviceProbe of(VfioHostDevice device, LogTrial trial) {
    boolean cdev = device.cdev().isPresent() && Files.exists(Path.of(device.cdev().get()));
    return cdev && Iommufd.missing().isEmpty()
        ? throughIommufd(device, trial)
        : throughType1(device, trial);
  }

  /** As {@link #of}, by its character device only. */
  public static DeviceProbe throughIommufd(VfioHostDevice device, LogTrial trial) {
    String path = node(device, device.cdev(), "character device (needs CONFIG_VFIO_DEVICE_CDEV)");
    try (Iommufd iommufd = Iommufd.open();
        VfioDevice open = VfioDevice.open(path)) {
      return bound(device.name(), open, iommufd, open.bindIommufd(iommufd), trial);
    }
  }

  /**
   * Asks a device that is bound already.
   *
   * @param name what to call it
   * @param deviceId its id on the iommufd, from its bind
   * @param trial of its log, if it has one
   * @throws LinuxException if the device does not answer
   */
  public static DeviceProbe bound(
      String name, VfioDevice device, Iommufd iommufd, int deviceId, LogTrial trial) {
    Optional<String> missing = trackingMissing(iommufd, deviceId);
    return ask(
        name,
        device,
        trial,
        missing.isEmpty(),
        missing.orElse("made with dirty tracking"),
        IOMMUFD,
        null);
  }

  /** As {@link #of}, by its group and a type1 container only. */
  public static DeviceProbe throughType1(VfioHostDevice device, LogTrial trial) {
    String path = node(device, device.group(), "group (needs CONFIG_VFIO_GROUP)");
    try (VfioContainer container = VfioContainer.open();
        VfioGroup group = VfioGroup.open(path)) {
      group.setContainer(container);
      container.setIommu(VfioUapi.VFIO_TYPE1v2_IOMMU);
      Type1Limits limits =
          container
              .info()
              .migration()
              .map(found -> new Type1Limits(found.maxDirtyBitmapSize(), found.pageSize()))
              .orElse(null);
      try (VfioDevice open = group.openDevice(device.name())) {
        return ask(device.name(), open, trial, false, "type1 has none that tracks", TYPE1, limits);
      }
    }
  }

  private static String node(VfioHostDevice device, Optional<String> path, String what) {
    return path.orElseThrow(
        () -> new LinuxException(device.name() + " has no " + what, Errno.ENOENT));
  }

  private static DeviceProbe ask(
      String name,
      VfioDevice device,
      LogTrial trial,
      boolean tracks,
      String pageTable,
      String container,
      Type1Limits limits) {
    boolean logs =
        device.probeFeature(
            VfioUapi.VFIO_DEVICE_FEATURE_SET | VfioUapi.VFIO_DEVICE_FEATURE_DMA_LOGGING_START);
    return new DeviceProbe(
        name,
        device.fd().label(),
        device.migrationFlags(),
        logs,
        logs ? trial.refusal(device).orElse(null) : null,
        tracks,
        pageTable,
        container,
        limits);
  }

  /**
   * Whether page tables for a device can track, by making one and destroying it.
   *
   * @param deviceId the device's id on the iommufd, from its bind
   * @return why not; empty if they can
   */
  public static Optional<String> trackingMissing(Iommufd iommufd, int deviceId) {
    try (Ioas ioas = iommufd.allocIoas()) {
      iommufd.allocHwpt(deviceId, ioas, IommufdUapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING).close();
      return Optional.empty();
    } catch (LinuxException e) {
      return Optional.of(e.getMessage());
    }
  }

  /**
   * The device as a part of a guest.
   *
   * @param migration whether the operator wants it migrated
   * @param deviceTracking whether its own DMA log may be used, if it has one
   */
  public DeviceFacts facts(OnOffAuto migration, OnOffAuto deviceTracking) {
    return new DeviceFacts(
        name,
        migration,
        deviceTracking,
        (migrationFlags & VfioUapi.VFIO_MIGRATION_STOP_COPY) != 0,
        (migrationFlags & VfioUapi.VFIO_MIGRATION_P2P) != 0,
        logsDma,
        pageTableTracks,
        logRefusal);
  }
}
