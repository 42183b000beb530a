package dev.tidemark.bench.lab;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/** Each flavour of the lab has the devices that its tests count on. */
class LabFlavourTest {
  /** How many devices bench/lab/dmalog makes. */
  private static final int OWN = 6;

  private static long own() throws IOException {
    return names("/sys/bus/platform/drivers/dmalog").stream()
        .filter(name -> name.startsWith("dmalog."))
        .count();
  }

  private static List<String> names(String folder) throws IOException {
    try (Stream<Path> files = Files.list(Path.of(folder))) {
      return files.map(file -> file.getFileName().toString()).sorted().toList();
    }
  }

  @Test
  @Tag("lab-mock")
  void mockHasAnIommuThatTestsCommand() throws IOException {
    assertTrue(Files.exists(Path.of("/dev/iommu")));
    assertTrue(Files.isDirectory(Path.of("/sys/kernel/debug/fail_iommufd")));
    assertFalse(Files.exists(Path.of("/sys/class/iommu/dmar0")));
    assertEquals(1 + OWN, names("/dev/vfio/devices").size());
    assertEquals(OWN, own());
  }

  @Test
  @Tag("lab-vtd")
  void vtdHasAPciDeviceBehindAnIommu() throws IOException {
    assertTrue(Files.exists(Path.of("/dev/iommu")));
    assertTrue(Files.exists(Path.of("/sys/class/iommu/dmar0")));
    assertEquals(2 + OWN, names("/dev/vfio/devices").size());
    assertEquals(OWN, own());
    assertEquals(
        1, names("/sys/bus/pci/drivers/vfio-pci").stream().filter(n -> n.contains(":")).count());
  }
}
