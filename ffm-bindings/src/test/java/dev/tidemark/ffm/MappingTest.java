package dev.tidemark.ffm;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.ffm.internal.Libc;
import java.lang.foreign.MemorySegment;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class MappingTest {
  /** Has the kernel write zeros to an address, which gives EFAULT where a store would crash. */
  private static long kernelWrites(long address, long bytes) {
    try (Fd zero = Fd.open("/dev/zero", Fd.O_RDONLY)) {
      int number = zero.acquire();
      try {
        return Libc.read(number, MemorySegment.ofAddress(address), bytes);
      } finally {
        zero.release();
      }
    }
  }

  @Test
  void anonymousMemoryIsZeroWritableAndWholePages() {
    try (Mapping mapping = Mapping.anonymous(Pages.SIZE + 1)) {
      MemorySegment memory = mapping.segment();
      assertEquals(2 * Pages.SIZE, memory.byteSize());
      assertEquals(0, memory.address() % Pages.SIZE);
      assertEquals(0, memory.get(JAVA_LONG, Pages.SIZE));
      memory.set(JAVA_LONG, 2 * Pages.SIZE - 8, 1);
    }
  }

  @ParameterizedTest
  @ValueSource(longs = {64, 4032, 4096, 4160, 65536, 1 << 20})
  void theKernelCannotWriteBehindAGuardedMapping(long bytes) {
    try (Mapping mapping = Mapping.guarded(bytes)) {
      MemorySegment memory = mapping.segment();
      assertEquals(bytes, memory.byteSize());
      assertEquals(0, memory.address() % 64);
      long end = memory.address() + bytes;
      assertEquals(0, end % Pages.SIZE);
      memory.fill((byte) -1);
      assertEquals(bytes, kernelWrites(memory.address(), bytes));
      assertEquals(-1, memory.mismatch(MemorySegment.ofArray(new byte[(int) bytes])));
      assertEquals(8, kernelWrites(end - 8, 16), "the kernel stops at the end");
      assertEquals(-Errno.EFAULT, kernelWrites(end, 1));
      assertEquals(-Errno.EFAULT, kernelWrites(end + Pages.SIZE - 1, 1), "all of the guard page");
    }
  }

  @Test
  void populatingAllocatesEachPageAndKeepsIt() {
    Mapping mapping = Mapping.anonymous(64 * Pages.SIZE);
    try (mapping) {
      mapping.segment().set(JAVA_LONG, 8, 7);
      assertEquals(1, resident(mapping.segment()));
      assertTrue(mapping.populate());
      assertEquals(64, resident(mapping.segment()));
      assertEquals(7, mapping.segment().get(JAVA_LONG, 8));
    }
    assertThrows(ClosedException.class, mapping::populate);
  }

  @Test
  void guardedMemoryIsTouchedInAdvance() {
    try (Mapping mapping = Mapping.guarded(64 * Pages.SIZE)) {
      assertEquals(64, resident(mapping.segment()));
    }
    try (Mapping mapping = Mapping.anonymous(64 * Pages.SIZE)) {
      assertEquals(0, resident(mapping.segment()));
    }
  }

  /** Pages that are present (bit 63) or swapped out (bit 62), by /proc/self/pagemap. */
  private static int resident(MemorySegment memory) {
    int resident = 0;
    try (var pagemap = new java.io.RandomAccessFile("/proc/self/pagemap", "r")) {
      for (long at = memory.address(); at < memory.address() + memory.byteSize(); ) {
        pagemap.seek(at / Pages.SIZE * 8);
        long entry = Long.reverseBytes(pagemap.readLong());
        resident += entry >>> 62 != 0 ? 1 : 0;
        at += Pages.SIZE;
      }
    } catch (java.io.IOException e) {
      throw new AssertionError(e);
    }
    return resident;
  }

  @Test
  void closeUnmapsOnceAndUseAfterCloseIsRefused() {
    Mapping mapping = Mapping.anonymous(Pages.SIZE);
    mapping.close();
    mapping.close();
    assertThrows(ClosedException.class, mapping::segment);
  }

  @Test
  void lengthsThatMakeNoSenseAreRefused() {
    assertThrows(IllegalArgumentException.class, () -> Mapping.anonymous(0));
    assertThrows(IllegalArgumentException.class, () -> Mapping.anonymous(-1));
    assertThrows(IllegalArgumentException.class, () -> Mapping.guarded(63));
    assertThrows(IllegalArgumentException.class, () -> Mapping.guarded(0));
  }

  @Test
  void moreMemoryThanThereIsIsAnErrorThatSaysHowMuch() {
    var refused = assertThrows(LinuxException.class, () -> Mapping.guarded(1L << 62));
    assertEquals(Errno.ENOMEM, refused.errno());
    assertTrue(refused.getMessage().contains("bytes, guarded"), refused.getMessage());
    assertThrows(LinuxException.class, () -> Mapping.anonymous(1L << 62));
    assertThrows(ArithmeticException.class, () -> Mapping.anonymous(Long.MAX_VALUE));
  }

  @Test
  void mappingsOfOneMemfdShareItsBytes() {
    try (Memfd memfd = Memfd.create("shared", Pages.SIZE + 8)) {
      assertEquals(Pages.SIZE + 8, memfd.bytes());
      Mapping first = memfd.map();
      try (Mapping second = Mapping.shared(memfd.fd(), Pages.SIZE, 8)) {
        memfd.fd().close();
        assertEquals(Pages.SIZE + 8, first.segment().byteSize());
        first.segment().set(JAVA_BYTE, Pages.SIZE + 3, (byte) 7);
        assertEquals(7, second.segment().get(JAVA_BYTE, 3), "the mappings outlive the descriptor");
      } finally {
        first.close();
      }
      assertThrows(ClosedException.class, memfd::map);
    }
  }

  /** Memory behind the end of a file that was shrunk ends whoever touches it. */
  @Test
  void aMemfdKeepsItsLength() {
    try (Memfd memfd = Memfd.create("sealed", 2 * Pages.SIZE)) {
      int number = memfd.fd().acquire();
      try {
        assertEquals(-Errno.EPERM, Libc.ftruncate(number, Pages.SIZE));
        assertEquals(-Errno.EPERM, Libc.ftruncate(number, 3 * Pages.SIZE));
        assertEquals(0, Libc.ftruncate(number, 2 * Pages.SIZE));
      } finally {
        memfd.fd().release();
      }
    }
  }

  @Test
  void aMemfdWithoutBytesIsRefused() {
    assertThrows(IllegalArgumentException.class, () -> Memfd.create("empty", 0));
  }

  @Test
  void anUnalignedOffsetIsAnErrorThatNamesTheFile() {
    try (Memfd memfd = Memfd.create("aligned", 2 * Pages.SIZE)) {
      var refused =
          assertThrows(LinuxException.class, () -> Mapping.shared(memfd.fd(), 1, Pages.SIZE));
      assertEquals(Errno.EINVAL, refused.errno());
      assertTrue(refused.getMessage().contains("memfd aligned"), refused.getMessage());
    }
  }

  @Test
  void pagesAreRoundedUp() {
    assertEquals(0, Pages.roundUp(0));
    assertEquals(Pages.SIZE, Pages.roundUp(1));
    assertEquals(Pages.SIZE, Pages.roundUp(Pages.SIZE));
    assertEquals(2 * Pages.SIZE, Pages.roundUp(Pages.SIZE + 1));
    assertEquals(1L << 50, Pages.roundUp((1L << 50) - 1));
    assertEquals(Pages.SIZE, 1L << Pages.SHIFT);
  }
}
