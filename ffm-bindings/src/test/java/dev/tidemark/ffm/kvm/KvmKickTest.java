package dev.tidemark.ffm.kvm;

import static dev.tidemark.ffm.kvm.KvmConstants.KVM_EXIT_IO;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.ffm.lab.MiniGuest;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.SynchronousQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

class KvmKickTest {
  private static final int TIMES = 2000;

  @Test
  @Timeout(value = 300, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
  void everyKickBringsTheGuestOutAndLeavesNothingBehind() throws Exception {
    try (MiniGuest guest = new MiniGuest(64, 0, _ -> {})) {
      // As good as for ever on one page: it leaves KVM_RUN for no reason of its own.
      guest.program(0, Long.MAX_VALUE, 0);
      var kickable = new CompletableFuture<KvmKick>();
      var out = new SynchronousQueue<Integer>();
      var failure = new AtomicReference<Throwable>();
      Thread vcpuThread =
          Thread.ofPlatform()
              .name("vcpu")
              .start(
                  () -> {
                    try (KvmKick kick = KvmKick.onThisThread(guest.vcpu)) {
                      kickable.complete(kick);
                      for (int i = 0; i < TIMES; i++) {
                        int result = guest.vcpu.run();
                        kick.consume();
                        out.put(result);
                      }
                      guest.program(0, 1, 0);
                      // No signal is left that would end this one.
                      out.put(guest.vcpu.run());
                    } catch (Throwable t) {
                      failure.set(t);
                    }
                  });
      KvmKick kick = kickable.get(60, TimeUnit.SECONDS);
      for (int i = 0; i < TIMES; i++) {
        kick.kick();
        Integer result = out.poll(60, TimeUnit.SECONDS);
        assertEquals(KvmVcpu.INTERRUPTED, result, () -> "kick: " + failure.get());
        if (i % 7 == 0) {
          // Lets the guest get into KVM_RUN sometimes; either way the outcome is the same.
          Thread.sleep(1);
        }
      }
      assertEquals(KVM_EXIT_IO, out.poll(60, TimeUnit.SECONDS));
      vcpuThread.join();
      assertNull(failure.get());
      kick.kick();
    }
  }

  @Test
  void aKickBeforeTheRunIsNotLost() throws Exception {
    try (MiniGuest guest = new MiniGuest(64, 0, _ -> {})) {
      guest.program(0, Long.MAX_VALUE, 0);
      onPlatformThread(
          () -> {
            try (KvmKick kick = KvmKick.onThisThread(guest.vcpu)) {
              Thread.ofPlatform().start(kick::kick).join();
              assertEquals(KvmVcpu.INTERRUPTED, guest.vcpu.run());
              assertEquals(0, guest.word(0), "the guest did not run");
            }
          });
    }
  }

  @Test
  void manyKicksAreTakenBackAtOnce() throws Exception {
    try (MiniGuest guest = new MiniGuest(64, 0, _ -> {})) {
      onPlatformThread(
          () -> {
            try (KvmKick kick = KvmKick.onThisThread(guest.vcpu)) {
              for (int i = 0; i < 100; i++) {
                kick.kick();
              }
              assertEquals(KvmVcpu.INTERRUPTED, guest.vcpu.run());
              kick.consume();
              assertEquals(KVM_EXIT_IO, guest.vcpu.run());
            }
          });
    }
  }

  @Test
  void theSignalAloneEndsARun() throws Exception {
    try (MiniGuest guest = new MiniGuest(64, 0, _ -> {})) {
      guest.program(0, Long.MAX_VALUE, 0);
      onPlatformThread(
          () -> {
            try (KvmKick kick = KvmKick.onThisThread(guest.vcpu)) {
              kick.kick();
              guest.vcpu.setImmediateExit(false);
              assertEquals(KvmVcpu.INTERRUPTED, guest.vcpu.run());
            }
          });
    }
  }

  @Test
  void aVirtualThreadIsRefused() throws Exception {
    try (MiniGuest guest = new MiniGuest(64, 0, _ -> {})) {
      var failure = new AtomicReference<Throwable>();
      Thread.ofVirtual()
          .start(
              () ->
                  failure.set(
                      assertThrows(
                          IllegalStateException.class, () -> KvmKick.onThisThread(guest.vcpu))))
          .join();
      assertTrue(failure.get().getMessage().contains("platform"), failure.get().getMessage());
    }
  }

  private interface Body {
    void run() throws Exception;
  }

  private static void onPlatformThread(Body body) throws Exception {
    var failure = new AtomicReference<Throwable>();
    Thread.ofPlatform()
        .start(
            () -> {
              try {
                body.run();
              } catch (Throwable t) {
                failure.set(t);
              }
            })
        .join();
    if (failure.get() != null) {
      throw new AssertionError(failure.get());
    }
  }
}
