" A stock MessagePack-RPC client: what Neovim's own rpcrequest and rpcnotify make of the daemon. Run by
"   tests/with_daemon nvim --headless --clean -S tests/neovim.vim
function! s:run() abort
  let channel = sockconnect('pipe', $KVSTORED_SOCKET, {'rpc': 1})
  call assert_notequal(0, channel)
  let info = rpcrequest(channel, 'bucket.create', 'neovim', {'history': 3})
  call assert_equal(3, info.history)
  call assert_equal(1, rpcrequest(channel, 'kv.put', 'neovim', 'color', 'blue'))
  call assert_equal(2, rpcrequest(channel, 'kv.put', 'neovim', 'color', 'red', {'headers': {'Size': 'large'}}))
  let entry = rpcrequest(channel, 'kv.get', 'neovim', 'color')
  call assert_equal('red', entry.value)
  call assert_equal('large', entry.headers.Size)
  call assert_equal(2, entry.revision)
  call assert_equal(v:null, rpcrequest(channel, 'kv.get', 'neovim', 'nowhere'))
  call assert_equal(['color'], rpcrequest(channel, 'kv.keys', 'neovim'))
  call assert_equal(2, len(rpcrequest(channel, 'kv.history', 'neovim', 'color')))

  call rpcrequest(channel, 'kv.put', 'neovim', 'settings', {'tabs': [2, 4], 'wrap': v:true})
  call assert_equal({'tabs': [2, 4], 'wrap': v:true}, rpcrequest(channel, 'kv.get_json', 'neovim', 'settings'))

  " An error is an exception, and the channel goes on. Neovim shows errors that are texts; of a map it would say
  " 'unknown error'.
  call assert_equal({'errors': 'text'}, rpcrequest(channel, 'session.configure', {'errors': 'text'}))
  for [pattern, wrong] in [['already_exists: .* (outcome: none)', ['kv.create', 'neovim', 'color', 'x']],
        \ ['bucket_not_found: ', ['kv.get', 'nowhere', 'k']],
        \ ['invalid_argument: unknown method', ['kv.nonsense']]]
    let failed = 0
    try
      call call('rpcrequest', [channel] + wrong)
    catch
      let failed = 1
      call assert_match(pattern, v:exception)
    endtry
    call assert_equal(1, failed, string(wrong))
  endfor

  call rpcnotify(channel, 'kv.put', 'neovim', 'told', 'v')
  let tries = 0
  while rpcrequest(channel, 'kv.get', 'neovim', 'told') is v:null && tries < 12000
    let tries += 1
    sleep 5m
  endwhile
  call assert_equal('v', rpcrequest(channel, 'kv.get', 'neovim', 'told').value)
  call assert_true(rpcrequest(channel, 'health.check').healthy)
  call chanclose(channel)
endfunction

try
  call s:run()
catch
  call add(v:errors, v:throwpoint . ': ' . v:exception)
endtry
if empty(v:errors)
  verbose echo 'neovim: ok'
  echo "\n"
  qall!
endif
for error in v:errors
  echo error . "\n"
endfor
cquit!
