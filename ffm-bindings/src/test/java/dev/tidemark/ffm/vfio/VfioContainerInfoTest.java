package dev.tidemark.ffm.vfio;

import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.ffm.iommufd.IovaRange;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.List;
import java.util.Optional;
import java.util.OptionalLong;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/** What is made of an answer of VFIO_IOMMU_GET_INFO, also of one that makes no sense. */
class VfioContainerInfoTest {
  private final Arena arena = Arena.ofConfined();
  private final MemorySegment info = arena.allocate(128, 8);

  @AfterEach
  void free() {
    arena.close();
  }

  private void header(int flags, int first) {
    info.set(JAVA_INT, 4, flags);
    info.set(JAVA_LONG, 8, 0x1000);
    info.set(JAVA_INT, 16, first);
  }

  private void capability(long at, int id, int next) {
    info.set(JAVA_SHORT, at, (short) id);
    info.set(JAVA_SHORT, at + 2, (short) 1);
    info.set(JAVA_INT, at + 4, next);
  }

  private void migration(long at, int next) {
    capability(at, VfioUapi.VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION, next);
    info.set(JAVA_LONG, at + 16, 0x40201000L);
    info.set(JAVA_LONG, at + 24, 1 << 28);
  }

  @Test
  void aChainInAnyOrderIsRead() {
    header(3, 72);
    migration(24, 0);
    capability(56, 3, 24);
    info.set(JAVA_INT, 64, -1);
    capability(72, 1, 56);
    info.set(JAVA_INT, 80, 2);
    info.set(JAVA_LONG, 88, 0);
    info.set(JAVA_LONG, 96, 0xfedfffffL);
    info.set(JAVA_LONG, 104, 0xfef00000L);
    info.set(JAVA_LONG, 112, -1);
    VfioContainer.Info read = VfioContainer.info(info);
    assertEquals(0x1000, read.pageSizes());
    assertEquals(
        List.of(new IovaRange(0, 0xfedfffffL), new IovaRange(0xfef00000L, -1)), read.ranges());
    assertEquals(Optional.of(new VfioContainer.Migration(0x40201000L, 1 << 28)), read.migration());
    assertEquals(4096, read.migration().orElseThrow().pageSize());
    assertEquals(OptionalLong.of(0xffffffffL), read.mappingsLeft());
  }

  @Test
  void aChainThatIsNotAnnouncedIsNotRead() {
    header(1, 24);
    migration(24, 24);
    VfioContainer.Info read = VfioContainer.info(info);
    assertTrue(read.migration().isEmpty());
    assertTrue(read.mappingsLeft().isEmpty());
    assertEquals(List.of(), read.ranges());
  }

  @Test
  void anUnknownCapabilityIsPassedOver() {
    header(2, 24);
    capability(24, 77, 32);
    migration(32, 0);
    assertTrue(VfioContainer.info(info).migration().isPresent());
  }

  private void senseless(String message) {
    IllegalStateException refused =
        assertThrows(IllegalStateException.class, () -> VfioContainer.info(info));
    assertTrue(refused.getMessage().contains(message), refused.getMessage());
  }

  @Test
  void aCircleIsRefused() {
    header(2, 24);
    migration(24, 56);
    capability(56, 77, 24);
    senseless("circle");
  }

  @Test
  void aCapabilityBehindTheEndIsRefused() {
    header(2, 124);
    senseless("offset 124");
  }

  @Test
  void aCapabilityFarAwayIsRefused() {
    header(2, -8);
    senseless("offset 4294967288");
  }

  @Test
  void aCapabilityInsideTheStructureIsRefused() {
    header(2, 8);
    senseless("offset 8");
  }

  @Test
  void aCapabilityAtAnOddPlaceIsRefused() {
    header(2, 25);
    senseless("offset 25");
  }

  @Test
  void aCapabilityThatIsCutOffIsRefused() {
    header(2, 112);
    capability(112, VfioUapi.VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION, 0);
    senseless("cut off");
  }

  @Test
  void moreRangesThanFitAreRefused() {
    header(2, 24);
    capability(24, VfioUapi.VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, 0);
    info.set(JAVA_INT, 32, -1);
    senseless("cut off");
  }

  @Test
  void trackingWithoutAPageSizeIsRefused() {
    header(2, 24);
    migration(24, 0);
    info.set(JAVA_LONG, 40, 0);
    senseless("page size");
  }
}
