package dev.tidemark.ffm.userfaultfd;

import static dev.tidemark.ffm.userfaultfd.UserfaultfdUapi.UFFDIO_API;
import static dev.tidemark.ffm.userfaultfd.UserfaultfdUapi.UFFDIO_API_LAYOUT;
import static dev.tidemark.ffm.userfaultfd.UserfaultfdUapi.UFFDIO_REGISTER;
import static dev.tidemark.ffm.userfaultfd.UserfaultfdUapi.UFFDIO_REGISTER_LAYOUT;
import static dev.tidemark.ffm.userfaultfd.UserfaultfdUapi.UFFDIO_WRITEPROTECT;
import static dev.tidemark.ffm.userfaultfd.UserfaultfdUapi.UFFDIO_WRITEPROTECT_LAYOUT;
import static dev.tidemark.ffm.userfaultfd.UserfaultfdUapi.UFFD_FEATURE_PAGEFAULT_FLAG_WP;
import static dev.tidemark.ffm.userfaultfd.UserfaultfdUapi.UFFD_FEATURE_WP_ASYNC;
import static dev.tidemark.ffm.userfaultfd.UserfaultfdUapi.UFFD_FEATURE_WP_UNPOPULATED;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.tidemark.ffm.ClosedException;
import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.Ioctl;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.internal.Libc;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class UserfaultfdTest {
  @BeforeEach
  void needWriteProtectAsync() {
    var missing = Userfaultfd.probe().missing(UFFD_FEATURE_WP_ASYNC);
    assumeTrue(missing.isEmpty(), () -> missing.orElseThrow());
  }

  private static int errno(Runnable call) {
    return assertThrows(LinuxException.class, call::run).errno();
  }

  @Test
  void probingNamesTheFeaturesAndCanBeRepeated() {
    var support = Userfaultfd.probe();
    long expected =
        UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_ASYNC;
    assertEquals(expected, support.features() & expected);
    assertEquals(support, Userfaultfd.probe());
    assertTrue(support.missing(1L << 62).orElseThrow().contains("bit 62"));
  }

  @Test
  void featuresHaveTheirKernelNames() {
    assertEquals(
        List.of("PAGEFAULT_FLAG_WP", "WP_HUGETLBFS_SHMEM", "WP_ASYNC", "MOVE", "bit 20"),
        UserfaultfdUapi.featureNames(1 | 0x1000 | 0x8000 | 1 << 16 | 1 << 20));
  }

  @Test
  void aFeatureThatTheKernelLacksIsNamedInTheError() {
    LinuxException refused =
        assertThrows(LinuxException.class, () -> Userfaultfd.open(1L << 62 | 1));
    assertEquals(Errno.EINVAL, refused.errno());
    assertTrue(refused.getMessage().contains("bit 62"), refused.getMessage());
  }

  @Test
  void theHandshakeWorksOncePerDescriptorEvenWhenItAskedForNothing() {
    try (Userfaultfd uffd = Userfaultfd.open(0);
        Arena arena = Arena.ofConfined()) {
      MemorySegment api = arena.allocate(UFFDIO_API_LAYOUT);
      api.set(JAVA_LONG, 0, UserfaultfdUapi.UFFD_API);
      assertEquals(-Errno.EINVAL, Ioctl.tryCall(uffd.fd(), UFFDIO_API, api));
      assertEquals(0, api.get(JAVA_LONG, 0), "the kernel zeroes what it refuses");
    }
  }

  @Test
  void theDeviceIsAnotherWayToTheSameThing() {
    assumeTrue(
        Files.isReadable(Path.of("/dev/userfaultfd")), "/dev/userfaultfd is not readable here");
    try (Userfaultfd uffd = Userfaultfd.openFromDevice(UFFD_FEATURE_WP_ASYNC);
        Mapping memory = Mapping.anonymous(Pages.SIZE)) {
      uffd.register(memory.segment().address(), Pages.SIZE);
    }
  }

  @Test
  void registeringAnswersWithTheRequestsThatTheRangeAllows() {
    try (Userfaultfd uffd = Userfaultfd.open(UFFD_FEATURE_WP_ASYNC);
        Mapping memory = Mapping.anonymous(Pages.SIZE);
        Arena arena = Arena.ofConfined()) {
      MemorySegment register = arena.allocate(UFFDIO_REGISTER_LAYOUT);
      register.set(JAVA_LONG, 0, memory.segment().address());
      register.set(JAVA_LONG, 8, Pages.SIZE);
      register.set(JAVA_LONG, 16, UserfaultfdUapi.UFFDIO_REGISTER_MODE_WP);
      assertEquals(0, Ioctl.tryCall(uffd.fd(), UFFDIO_REGISTER, register));
      int writeProtect = UFFDIO_WRITEPROTECT.code() & 0xff;
      assertEquals(1, register.get(JAVA_LONG, 24) >> writeProtect & 1);
    }
  }

  @Test
  void memoryBelongsToOneUserfaultfdOnly() {
    try (Userfaultfd first = Userfaultfd.open(UFFD_FEATURE_WP_ASYNC);
        Userfaultfd second = Userfaultfd.open(UFFD_FEATURE_WP_ASYNC);
        Mapping mapping = Mapping.anonymous(4 * Pages.SIZE)) {
      long start = mapping.segment().address();
      first.register(start, 4 * Pages.SIZE);
      first.register(start, 4 * Pages.SIZE);
      assertEquals(Errno.EBUSY, errno(() -> second.register(start + Pages.SIZE, 2 * Pages.SIZE)));
      first.fd().close();
      second.register(start, 4 * Pages.SIZE);
    }
  }

  @Test
  void memoryThatIsNotThereOrNotWholePagesIsRefused() {
    try (Userfaultfd uffd = Userfaultfd.open(UFFD_FEATURE_WP_ASYNC);
        Mapping mapping = Mapping.anonymous(2 * Pages.SIZE)) {
      long start = mapping.segment().address();
      assertEquals(Errno.EINVAL, errno(() -> uffd.register(start + 1, Pages.SIZE)));
      assertEquals(Errno.EINVAL, errno(() -> uffd.register(start, Pages.SIZE + 1)));
      assertEquals(Errno.EINVAL, errno(() -> uffd.register(0, Pages.SIZE)));
      LinuxException refused = assertThrows(LinuxException.class, () -> uffd.register(start, 0));
      assertEquals(Errno.EINVAL, refused.errno());
      String address = Long.toHexString(start);
      assertTrue(refused.getMessage().contains("0 bytes at 0x" + address), refused.getMessage());
    }
  }

  @Test
  void aSharedMappingOfAFileOpenForReadingOnlyIsRefused(@TempDir Path folder) throws IOException {
    Path file = Files.write(folder.resolve("file"), new byte[(int) Pages.SIZE]);
    try (Userfaultfd uffd = Userfaultfd.open(UFFD_FEATURE_WP_ASYNC);
        FileChannel channel = FileChannel.open(file, StandardOpenOption.READ);
        Arena arena = Arena.ofConfined()) {
      MemorySegment memory = channel.map(FileChannel.MapMode.READ_ONLY, 0, Pages.SIZE, arena);
      assertEquals(Errno.EPERM, errno(() -> uffd.register(memory.address(), Pages.SIZE)));
    }
  }

  @Test
  void protectingWhatIsNotRegisteredIsRefused() {
    try (Userfaultfd uffd = Userfaultfd.open(UFFD_FEATURE_WP_ASYNC);
        Mapping mapping = Mapping.anonymous(4 * Pages.SIZE)) {
      long start = mapping.segment().address();
      uffd.register(start, Pages.SIZE);
      assertEquals(
          Errno.ENOENT, errno(() -> uffd.writeProtect(start + 2 * Pages.SIZE, Pages.SIZE, true)));
      assertEquals(Errno.EINVAL, errno(() -> uffd.writeProtect(start, 0, true)));
      try (Arena arena = Arena.ofConfined()) {
        MemorySegment argument = arena.allocate(UFFDIO_WRITEPROTECT_LAYOUT);
        argument.set(JAVA_LONG, 0, start);
        argument.set(JAVA_LONG, 8, Pages.SIZE);
        argument.set(
            JAVA_LONG,
            16,
            UserfaultfdUapi.UFFDIO_WRITEPROTECT_MODE_WP
                | UserfaultfdUapi.UFFDIO_WRITEPROTECT_MODE_DONTWAKE);
        assertEquals(-Errno.EINVAL, Ioctl.tryCall(uffd.fd(), UFFDIO_WRITEPROTECT, argument));
      }
    }
  }

  @Test
  void anotherRequestBeforeTheHandshakeIsRefused() {
    long number = System.getProperty("os.arch").equals("aarch64") ? 282 : 323;
    int flags = dev.tidemark.ffm.Fd.O_CLOEXEC | UserfaultfdUapi.UFFD_USER_MODE_ONLY;
    long result = Libc.syscall(number, flags, 0, 0);
    assumeTrue(result >= 0, () -> "userfaultfd(2): " + Errno.name((int) -result));
    try (var fd = dev.tidemark.ffm.Fd.own((int) result, "userfaultfd");
        Mapping mapping = Mapping.anonymous(Pages.SIZE);
        Arena arena = Arena.ofConfined()) {
      MemorySegment register = arena.allocate(UFFDIO_REGISTER_LAYOUT);
      register.set(JAVA_LONG, 0, mapping.segment().address());
      register.set(JAVA_LONG, 8, Pages.SIZE);
      register.set(JAVA_LONG, 16, UserfaultfdUapi.UFFDIO_REGISTER_MODE_WP);
      assertEquals(-Errno.EINVAL, Ioctl.tryCall(fd, UFFDIO_REGISTER, register));
    }
  }

  @Test
  void useAfterCloseIsRefused() {
    Userfaultfd uffd = Userfaultfd.open(0);
    uffd.close();
    uffd.close();
    assertThrows(ClosedException.class, () -> uffd.register(0, Pages.SIZE));
    assertThrows(ClosedException.class, () -> uffd.unregister(0, Pages.SIZE));
    assertThrows(ClosedException.class, () -> uffd.writeProtect(0, Pages.SIZE, true));
  }
}
