package dev.tidemark.ffm;

import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.ffm.Ioctl.Request;
import java.lang.foreign.Arena;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.net.InetSocketAddress;
import java.util.List;
import org.junit.jupiter.api.Test;

class IoctlTest {
  /** {@code asm-generic/ioctls.h}: how many bytes there are to read. */
  private static final Request FIONREAD = Ioctl._IO("FIONREAD", 'T', 0x1B);

  @Test
  void numbersAreMadeOfDirectionSizeTypeAndNumber() {
    assertEquals(0xae80, Ioctl._IO("KVM_RUN", 0xAE, 0x80).code());
    assertEquals(
        0x80045430, Ioctl._IOR("TIOCGPTN", 'T', 0x30, JAVA_INT).code(), "_IOR reads: bit 31");
    assertEquals(0x40045431, Ioctl._IOW("TIOCSPTLCK", 'T', 0x31, JAVA_INT).code());
    MemoryLayout arg = MemoryLayout.sequenceLayout(12, JAVA_LONG);
    assertEquals(0xc0606610, Ioctl._IOWR("PAGEMAP_SCAN", 'f', 16, arg).code());
  }

  @Test
  void anArgumentTooLargeForTheSizeFieldIsRefused() {
    MemoryLayout large =
        MemoryLayout.sequenceLayout(1 << 14, java.lang.foreign.ValueLayout.JAVA_BYTE);
    assertThrows(IllegalArgumentException.class, () -> Ioctl._IOW("LARGE", 'x', 1, large));
  }

  @Test
  void theKernelAnswersIntoTheArgument() {
    try (Socket listener = Socket.listen(new InetSocketAddress("127.0.0.1", 0));
        Socket out = Socket.connect(listener.localAddress());
        Socket in = listener.accept();
        Arena arena = Arena.ofConfined()) {
      IoVectors vectors = new IoVectors(arena, 1);
      vectors.add(arena.allocate(100));
      out.writeFully(vectors);
      in.awaitReadable(10_000);
      MemorySegment count = arena.allocate(4);
      assertEquals(0, Ioctl.call(in.fd(), FIONREAD, count));
      assertEquals(100, count.get(JAVA_INT, 0));
    }
  }

  @Test
  void aRefusalNamesTheRequestAndTheDescriptor() {
    try (Fd fd = Fd.open("/dev/null", Fd.O_RDWR)) {
      Request request = Ioctl._IO("KVM_RUN", 0xAE, 0x80);
      assertEquals(-Errno.ENOTTY, Ioctl.tryCall(fd, request, 0));
      assertEquals(-Errno.ENOTTY, Ioctl.tryCall(fd, request, MemorySegment.NULL));
      var refused = assertThrows(LinuxException.class, () -> Ioctl.call(fd, request, 0));
      assertEquals(Errno.ENOTTY, refused.errno());
      assertEquals("ioctl(KVM_RUN) on " + fd + ": ENOTTY (25)", refused.getMessage());
      assertThrows(LinuxException.class, () -> Ioctl.call(fd, request, MemorySegment.NULL));
    }
  }

  @Test
  void anArgumentThatTheKernelWouldWritePastIsRefused() {
    Request request =
        Ioctl._IOWR("PAGEMAP_SCAN", 'f', 16, MemoryLayout.sequenceLayout(12, JAVA_LONG));
    try (Fd fd = Fd.open("/dev/null", Fd.O_RDWR);
        Arena arena = Arena.ofConfined()) {
      MemorySegment large = arena.allocate(97);
      assertEquals(-Errno.ENOTTY, Ioctl.tryCall(fd, request, large));
      assertEquals(-Errno.ENOTTY, Ioctl.tryCall(fd, request, large.asSlice(1)));
      for (MemorySegment wrong :
          List.of(
              large.asSlice(2),
              MemorySegment.NULL,
              large.asReadOnly(),
              MemorySegment.ofArray(new byte[96]))) {
        var refused =
            assertThrows(IllegalArgumentException.class, () -> Ioctl.tryCall(fd, request, wrong));
        assertTrue(refused.getMessage().contains("PAGEMAP_SCAN"), refused.getMessage());
        assertThrows(IllegalArgumentException.class, () -> Ioctl.call(fd, request, wrong));
      }
      Request write = Ioctl._IOW("TIOCSPTLCK", 'T', 0x31, JAVA_INT);
      assertEquals(-Errno.ENOTTY, Ioctl.tryCall(fd, write, large.asReadOnly()), "only read");
    }
  }

  @Test
  void aClosedDescriptorIsNotAsked() {
    Fd fd = Fd.open("/dev/null", Fd.O_RDWR);
    fd.close();
    assertThrows(ClosedException.class, () -> Ioctl.tryCall(fd, FIONREAD, 0));
  }

  @Test
  void aCallAllocatesNoMoreThanItMayEvenWhenRefused() {
    try (Fd fd = Fd.open("/dev/null", Fd.O_RDWR);
        Arena arena = Arena.ofConfined()) {
      MemorySegment argument = arena.allocate(4);
      long withMemory = Allocations.perRun(() -> Ioctl.tryCall(fd, FIONREAD, argument));
      assertTrue(withMemory <= Allocations.PER_CALL, withMemory + " bytes");
      long withNumber = Allocations.perRun(() -> Ioctl.tryCall(fd, FIONREAD, 0));
      assertTrue(withNumber <= Allocations.PER_CALL, withNumber + " bytes");
    }
  }
}
