package dev.tidemark.ffm.vfio;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Comparator;
import java.util.List;
import java.util.Optional;
import java.util.stream.Stream;

/**
 * A VFIO device of this host, as sysfs tells it ({@code /sys/class/vfio-dev}, Linux 6.1). Nothing
 * is opened to know it.
 *
 * @param name what its bus and its group know it by, such as {@code 0000:3b:00.2} or a mediated
 *     device's UUID
 * @param driver its driver, such as {@code vfio-pci}; empty if it has none
 * @param cdev its character device, such as {@code /dev/vfio/devices/vfio0}; empty on a kernel
 *     without (Linux 6.6, {@code CONFIG_VFIO_DEVICE_CDEV})
 * @param group the character device of its group, such as {@code /dev/vfio/12}; empty if it is in
 *     none
 */
public record VfioHostDevice(
    String name, String driver, Optional<String> cdev, Optional<String> group) {
  private static final Path CLASS = Path.of("/sys/class/vfio-dev");

  /**
   * All of the host's, by name; empty on a kernel without VFIO.
   *
   * @throws UncheckedIOException if sysfs cannot be read
   */
  public static List<VfioHostDevice> list() {
    return list(CLASS);
  }

  static List<VfioHostDevice> list(Path folder) {
    if (!Files.isDirectory(folder)) {
      return List.of();
    }
    try (Stream<Path> found = Files.list(folder)) {
      return found
          .map(VfioHostDevice::of)
          .sorted(Comparator.comparing(VfioHostDevice::name))
          .toList();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static VfioHostDevice of(Path node) {
    Path device = node.resolve("device");
    return new VfioHostDevice(
        target(device).orElse(node.getFileName().toString()),
        target(device.resolve("driver")).orElse(""),
        Files.exists(node.resolve("dev"))
            ? Optional.of("/dev/vfio/devices/" + node.getFileName())
            : Optional.empty(),
        target(device.resolve("iommu_group")).map(group -> "/dev/vfio/" + group));
  }

  /** The last name of the path that a link leads to; empty if it leads nowhere, or to the root. */
  private static Optional<String> target(Path link) {
    try {
      return Optional.ofNullable(link.toRealPath().getFileName()).map(Path::toString);
    } catch (IOException e) {
      return Optional.empty();
    }
  }
}
