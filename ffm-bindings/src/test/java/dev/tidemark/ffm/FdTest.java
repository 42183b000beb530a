package dev.tidemark.ffm;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.ffm.internal.Libc;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class FdTest {
  private static boolean isOpen(int number) {
    return Files.exists(Path.of("/proc/self/fd/" + number), LinkOption.NOFOLLOW_LINKS);
  }

  private static int number(Fd fd) {
    int number = fd.acquire();
    fd.release();
    return number;
  }

  @Test
  void anOwnDescriptorIsClosedOnce() {
    Fd fd = Fd.open("/dev/null", Fd.O_RDWR);
    int number = number(fd);
    assertTrue(isOpen(number));
    fd.close();
    assertFalse(isOpen(number));
    try (Fd next = Fd.open("/dev/null", Fd.O_RDWR)) {
      assertEquals(number, number(next), "the kernel gives the lowest free number");
      fd.close();
      assertTrue(isOpen(number), "closing again must not close the next owner's file");
    }
  }

  @Test
  void aBorrowedDescriptorStaysOpenAndItsHandleDoesNot() {
    try (Fd owner = Fd.open("/dev/null", Fd.O_RDWR)) {
      int number = number(owner);
      Fd borrowed = Fd.borrow(number, "somebody's file");
      borrowed.close();
      assertTrue(isOpen(number));
      assertThrows(ClosedException.class, borrowed::acquire);
    }
  }

  @Test
  void useAfterCloseNamesWhatIsClosed() {
    Fd fd = Fd.open("/dev/null", Fd.O_RDWR);
    assertFalse(fd.isClosed());
    fd.close();
    assertTrue(fd.isClosed());
    var closed = assertThrows(ClosedException.class, fd::acquire);
    assertEquals("/dev/null is closed", closed.getMessage());
    assertTrue(fd.toString().contains("closed"), fd.toString());
  }

  @Test
  void aCloseDuringACallWaitsForItsRelease() {
    Fd fd = Fd.open("/dev/null", Fd.O_RDWR);
    int number = fd.acquire();
    fd.acquire();
    fd.close();
    assertThrows(ClosedException.class, fd::acquire);
    assertTrue(isOpen(number));
    fd.release();
    assertTrue(isOpen(number));
    fd.release();
    assertFalse(isOpen(number));
  }

  @Test
  void aBlockedReadKeepsItsDescriptorThroughAClose() throws Exception {
    try (Socket listener = Socket.listen(new InetSocketAddress("127.0.0.1", 0));
        Socket out = Socket.connect(listener.localAddress());
        Socket own = listener.accept();
        Arena arena = Arena.ofShared()) {
      // One of its own is shut down by close, which wakes the read.
      Socket in = Socket.borrow(own.fd().acquire());
      own.fd().release();
      MemorySegment buffer = arena.allocate(1);
      AtomicReference<Object> outcome = new AtomicReference<>();
      Thread reader =
          new Thread(
              () -> {
                try {
                  outcome.set(in.read(buffer, 1));
                } catch (RuntimeException e) {
                  outcome.set(e);
                }
              });
      reader.start();
      InCall.await(reader, "read");
      in.close();
      IoVectors one = new IoVectors(arena, 1);
      one.add(buffer);
      out.writeFully(one);
      reader.join();
      assertEquals(1L, outcome.get());
      assertThrows(ClosedException.class, () -> in.read(buffer, 1));
    }
  }

  @Test
  void closesAndCallsOfManyThreadsNeverReachAnotherFile() throws Exception {
    for (int round = 0; round < 200; round++) {
      Fd fd = Fd.open("/dev/zero", Fd.O_RDONLY);
      AtomicReference<Throwable> wrong = new AtomicReference<>();
      Thread[] readers = new Thread[3];
      for (int i = 0; i < readers.length; i++) {
        readers[i] =
            new Thread(
                () -> {
                  try (Arena arena = Arena.ofConfined()) {
                    MemorySegment buffer = arena.allocate(1);
                    while (true) {
                      int number = fd.acquire();
                      long result = Libc.read(number, buffer, 1);
                      fd.release();
                      assertEquals(1, result);
                    }
                  } catch (ClosedException e) {
                    // The way out.
                  } catch (Throwable t) {
                    wrong.set(t);
                  }
                });
        readers[i].start();
      }
      int number = number(fd);
      fd.close();
      for (Thread reader : readers) {
        reader.join();
      }
      assertEquals(null, wrong.get());
      assertFalse(isOpen(number));
    }
  }

  @Test
  void aFileThatIsNotThereIsNamed() {
    var refused = assertThrows(LinuxException.class, () -> Fd.open("/no/such/file", Fd.O_RDONLY));
    assertEquals("open(/no/such/file): ENOENT (2)", refused.getMessage());
  }

  /** C ends a string there: another file than the one that was checked would be opened. */
  @Test
  void aNameWithAZeroCharacterIsRefused() {
    assertThrows(IllegalArgumentException.class, () -> Fd.open("/dev/null\0.safe", Fd.O_RDONLY));
    assertThrows(IllegalArgumentException.class, () -> Memfd.create("a\0b", 1));
  }

  @Test
  void aFileThatIsCreatedCanBeReadByItsUser(@TempDir Path folder) throws Exception {
    int create = 0x40;
    Path path = folder.resolve("made");
    Fd.open(path.toString(), Fd.O_RDWR | create).close();
    assertEquals("rw-------", PosixFilePermissions.toString(Files.getPosixFilePermissions(path)));
  }

  /** The second close would close what was opened in between and given the same number. */
  @Test
  void aNumberHasOneOwner() {
    Fd first = Fd.open("/dev/null", Fd.O_RDWR);
    int number = number(first);
    var refused = assertThrows(IllegalStateException.class, () -> Fd.own(number, "again"));
    assertTrue(refused.getMessage().contains("/dev/null"), refused.getMessage());
    first.close();
    int again = Libc.open("/dev/null", Fd.O_RDWR, 0);
    assertEquals(number, again);
    Fd second = Fd.own(again, "again");
    assertTrue(isOpen(again));
    second.close();
    assertFalse(isOpen(again));
  }

  @Test
  void aReleaseWithoutAnAcquireIsRefusedAndChangesNothing() {
    Fd fd = Fd.open("/dev/null", Fd.O_RDWR);
    int number = number(fd);
    assertThrows(IllegalStateException.class, fd::release);
    assertFalse(fd.isClosed());
    assertEquals(number, number(fd));
    fd.close();
    assertFalse(isOpen(number));
    assertThrows(IllegalStateException.class, fd::release);
    assertTrue(fd.isClosed());
  }

  @Test
  void aNegativeNumberIsNoDescriptor() {
    assertThrows(IllegalArgumentException.class, () -> Fd.own(-1, "nothing"));
  }

  @Test
  void acquireAndReleaseAllocateNothing() {
    try (Fd fd = Fd.open("/dev/null", Fd.O_RDWR)) {
      assertEquals(0, Allocations.perRun(() -> number(fd)));
    }
  }
}
